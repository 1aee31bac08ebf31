"""YAML texts and overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysgd_local.config import files
from raysgd_local.errors import InputError


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "+1e-3", "0.001"])
def test_numbers_are_read_as_people_write_them(text: str) -> None:
    assert files.parse(f"lr: {text}") == {"lr": 0.001}


def test_what_only_looks_like_a_number_stays_text() -> None:
    assert files.parse("name: 1e-3b") == {"name": "1e-3b"}


def test_a_missing_file_is_told_with_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").touch()
    with pytest.raises(InputError, match=r"digit\.yaml' is not allowed; .*did you mean 'digits\.yaml'"):
        files.read(tmp_path / "digit.yaml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [1", "line 1, column"),
        ("a: 1\na: 2", "'a' is given twice"),
        ("- 1", "it holds list"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        ("a: \x00", "valid YAML"),
    ],
)
def test_what_is_no_configuration_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        files.read(path)
    assert caught.value.value == str(path)
    assert told in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="a text file that can be read"):
        files.read(tmp_path / "binary.yaml")
    with pytest.raises(InputError, match="a text file that can be read"):
        files.read(tmp_path)


def test_overriding_leaves_the_tree_as_it_was() -> None:
    tree = {"task": {"epochs": 3}}
    assert files.changed(tree, map(files.pair, ["task.epochs=5", "workers.max=2"])) == {
        "task": {"epochs": 5},
        "workers": {"max": 2},
    }
    assert tree == {"task": {"epochs": 3}}


def test_the_same_kind_again_keeps_the_settings_beside_it() -> None:
    tree = {"schedule": {"kind": "fixed", "tau": 8}}
    assert files.changed(tree, [files.pair("schedule.kind=fixed")]) == tree
