"""Stories of the protocol: commands, and the exchange between the real machines that they bring about.

After a change that is meant: `pytest tests/stories --regenerate`, then read the diff.
"""

from difflib import unified_diff
from pathlib import Path

import pytest
from story import Story

FILES = sorted(Path(__file__).parent.glob("*.txt"))


def told_anew(text):
    """The same prose and commands, with what the machines say to them now."""
    story, pages = Story(), [_prose(text)]
    for block in text.split("\n\n"):
        lines = block.splitlines()
        commands = [line.removeprefix("> ") for line in lines if line.startswith("> ")]
        if commands:
            told = "".join(story.obey(command) for command in commands)
            pages.append("\n".join(line for line in lines if line.startswith(("# ", "> "))))
            pages.append(told.rstrip())
    return "\n\n".join(page for page in pages if page) + "\n"


def _prose(text):
    return text.partition("\n\n#")[0].partition("\n\n>")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_machines_say_what_the_story_tells(path, request):
    text = path.read_text()
    now = told_anew(text)
    if request.config.getoption("--regenerate", default=False):
        path.write_text(now)
    elif text != now:
        changes = unified_diff(text.splitlines(), now.splitlines(), "the story", "the machines", lineterm="")
        pytest.fail("\n".join([f"{path.name}: (--regenerate if this is meant)", *changes]), pytrace=False)


def test_a_story_that_tells_something_else_is_noticed():
    text = FILES[0].read_text()
    assert told_anew(text.replace("view=1", "view=7")) == told_anew(text)
    assert "view=7" not in told_anew(text)
