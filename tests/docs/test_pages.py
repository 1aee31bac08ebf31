"""The pages name only places that exist: anchors, files, modules, and the folders of the package."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest
from pages import ROOT

PACKAGE = ROOT / "raysgd_local"
PAGES = ["README.md", "CHANGELOG.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```.*?^```$", re.M | re.S)
HEADING = re.compile(r"^#+ (.+)$", re.M)
LINK = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
FILE = re.compile(r"(?<![\w./:{}*-])(?:\.\./)?(?:[\w-]+/)+[\w.-]+\.(?:py|ya?ml|svg|md)\b(?!/)")
FOLDER = re.compile(
    r"(?<![\w./])(?:tests|benchmarks|examples|configs|tune_configs|cluster)/(?:[\w-]+/?)*(?![\w-]|\.\w)"
)
MODULE = re.compile(r"\braysgd_local(?:\.\w+)+")
OF_RUNS = ("runs/", "storage/", "trial_")


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors that GitHub makes of a page's headings."""
    prose = FENCED.sub("", path.read_text(encoding="utf-8"))
    return frozenset(
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(prose)
    )


def links(page: str) -> list[tuple[Path, str]]:
    """The page and the anchor of each internal link that has an anchor."""
    here = ROOT / page
    return [
        (here.parent / file if file else here, anchor)
        for file, anchor in LINK.findall(text(page))
        if "://" not in file
    ]


def files(page: str) -> set[str]:
    return {name for name in FILE.findall(text(page)) if not name.startswith(OF_RUNS)}


def exists(name: str, page: str) -> bool:
    """Pages name files from the project's root, from the package, or from where they lie themselves."""
    return any((place / name).exists() for place in (ROOT, PACKAGE, (ROOT / page).parent))


@pytest.mark.parametrize("page", PAGES)
def test_every_anchor_that_a_link_names_is_a_heading_of_its_page(page):
    assert [f"{path.name}#{anchor}" for path, anchor in links(page) if anchor not in anchors(path)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page):
    assert sorted(name for name in files(page) if not exists(name, page)) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_folder_that_a_page_names_exists(page):
    assert sorted(name for name in set(FOLDER.findall(text(page))) if not exists(name, page)) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_module_that_a_page_names_exists(page):
    """What follows the module, a function or a class, is not looked at: the blocks of Python are run."""
    modules = set(MODULE.findall(text(page)))
    assert sorted(name for name in modules if not is_module(name) and not is_module(name.rpartition(".")[0])) == []


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_the_searches_find_what_they_look_for():
    assert sum(len(links(page)) for page in PAGES) > 10
    assert {"control/member/machine.py", "transport/contract.py"} <= files("docs/architecture.md")
    assert "tests/hosts" in FOLDER.findall(text("README.md"))


def test_the_table_of_layers_has_every_folder_and_module_of_the_package():
    layers = text("docs/architecture.md").partition("\n## Layers\n")[2].partition("\n## ")[0]
    told = {
        name
        for row in re.findall(r"^\| (`.+?) \|", layers, re.M)
        for name in re.findall(r"`([\w/]+/|\w+\.py)`", row)
    }
    folders = {f"{path.parent.relative_to(PACKAGE)}/" for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE}
    modules = {path.name for path in PACKAGE.glob("[!_]*.py")}
    assert told == folders | modules
