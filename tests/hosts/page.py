"""The commands of `docs/cluster.md` for machines of one's own, as they stand there."""

from __future__ import annotations

from pages import blocks

COMMANDS = [
    line.removeprefix("$ ")
    for block in blocks("docs/cluster.md")
    if "ray up --yes cluster/on-prem.yaml" in block.text
    for line in block.text.splitlines()
]


def the_command(beginning: str) -> str:
    """The page's command that begins so."""
    (found,) = [command for command in COMMANDS if command.startswith(beginning)]
    return found
