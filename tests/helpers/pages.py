"""Code blocks of the project's pages, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the file that its first line names (or nothing)."""

    language: str
    text: str

    @property
    def file(self) -> str:
        named = re.match(r"# (\S+\.(?:py|yaml))\n", self.text)
        return named.group(1) if named else ""


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(*found) for found in BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))]


def write_files(page: str, directory: Path) -> None:
    """Write the blocks that name a file."""
    for block in blocks(page):
        if block.file:
            (directory / block.file).write_text(block.text, encoding="utf-8")


def run(block: Block, page: str) -> None:
    """Run a block of Python here, as a script."""
    exec(compile(block.text, page, "exec"), {"__name__": "__main__"})


def run_script(block: Block, directory: Path, cluster: str) -> str:
    """Run a block of Python as a script of its own, in `directory`, on a Ray cluster; returns what it prints."""
    (directory / "script.py").write_text(block.text, encoding="utf-8")
    return run_command([sys.executable, "script.py"], directory, cluster)


def run_command(words: list[str], directory: Path, cluster: str) -> str:
    """Run a command in `directory`, on a Ray cluster; returns what it prints. Fails if it does."""
    environment = {**os.environ, "RAY_ADDRESS": cluster, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, cwd=directory, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
