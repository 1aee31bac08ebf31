"""What the README shows is so: its Python runs, its commands are understood, its links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from pages import ROOT, blocks, run

from raysgd_local import config

PAGES = ["README.md", "CHANGELOG.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
SCRIPTS = [block for block in blocks("README.md") if block.language == "python"]
COMMANDS = [
    line.removeprefix("$ ")
    for block in blocks("README.md")
    if block.language == "console"
    for line in block.text.splitlines()
]


@pytest.mark.parametrize(("script", "name"), [(0, "demo"), (1, "loop")])
def test_the_python_of_the_readme_trains(script, name, workplace, cluster, capsys):
    run(SCRIPTS[script], "README.md")
    accuracy = float(capsys.readouterr().out.splitlines()[-1].split()[0])
    result = json.loads((workplace / "runs" / name / "result.json").read_text())
    assert result["status"] == "finished"
    assert accuracy == result["eval"]["accuracy"] > 0.85
    assert (workplace / "runs" / name / "model.pt").exists()


def test_every_script_of_the_readme_is_run():
    assert len(SCRIPTS) == 2


def test_the_set_up_is_two_commands():
    (block,) = [block for block in blocks("README.md") if "pip install" in block.text]
    assert block.text.splitlines() == [
        "$ pip install . && raysgd-local train",
        "$ pip install '.[test]' && pytest",
    ]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("raysgd-local train")])
def test_what_the_train_commands_set_can_be_set(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)[2:]
    values = {"--set": [], "--method": [], "--name": [], "--resume": []}
    file = None if words[0].startswith("--") else words.pop(0)
    for option, value in zip(words[0::2], words[1::2], strict=True):
        values[option].append(value)
    assert config.load(file, method=next(iter(values["--method"]), None), settings=values["--set"])


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_project_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert [target for target in targets if not ((ROOT / page).parent / target).exists()] == []
