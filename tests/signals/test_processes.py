"""The script that ends a command's processes at its second signal, and removes what they leave."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raysgd_local.signals import processes

BRANCHING = """
import subprocess, sys
while True:
    subprocess.Popen(["sleep", "60"], start_new_session=True)
"""


def ended(ancestor: int, *patterns: object) -> None:
    command = [sys.executable, "-I", "-S", processes.__file__, str(ancestor), *map(str, patterns)]
    subprocess.run(command, check=True, timeout=60)


def test_all_below_are_killed_though_they_start_others_meanwhile() -> None:
    """In a process that adopts orphans, as the command does by then."""
    code = f"""
import ctypes, os, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
started = [subprocess.Popen([sys.executable, "-c", {BRANCHING!r}]) for _ in range(2)]
time.sleep(0.5)
subprocess.run([sys.executable, "-I", "-S", {processes.__file__!r}, str(os.getpid())], check=True)
from raysgd_local.signals.processes import descendants
print(len(descendants(os.getpid())))
"""
    if not hasattr(ctypes.CDLL(None), "prctl"):
        pytest.skip("orphans can't be adopted here")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "0\n"


def test_what_is_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "run" / "lease").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "000001").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "000001" / "rank-0.pt.12ab.tmp").touch()
    (tmp_path / "run" / "lease" / "own.json").touch()
    (tmp_path / "session").mkdir()
    (tmp_path / "session" / "log").touch()
    (tmp_path / "latest").symlink_to(tmp_path / "session")
    idle = subprocess.Popen(["sleep", "60"])
    run = tmp_path / "run"
    ended(idle.pid, f"{run}/**/*.tmp", run / "lease" / "own.json", f"{run}/lease/", f"{run}/", tmp_path / "latest")
    assert idle.poll() is None, "only what is below it is killed"
    idle.kill()
    idle.wait()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "run",
        "run/checkpoints",
        "run/checkpoints/000001",
        "session",
        "session/log",
    ]
    ended(idle.pid, tmp_path / "session", tmp_path / "none")
    assert not (tmp_path / "session").exists()


def test_processes_that_ended_are_not_among_those_below() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '60'])"])
    deadline = time.monotonic() + 30
    while len(processes.descendants(child.pid)) < 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    below = processes.descendants(child.pid)
    assert len(below) == 1
    processes.kill([(below[0][0], below[0][1] + 1)])  # another process by now
    assert processes.descendants(child.pid) == below
    processes.kill(below)
    child.wait(30)
    assert processes.descendants(child.pid) == []
