"""The Python of `docs/data.md`, run as it stands."""

from __future__ import annotations

import numpy as np
import pytest
from pages import blocks, run, write_files
from shards import check_starts

from raysgd_local import ShardError
from raysgd_local.sources import Source

PAGE = "docs/data.md"
BLOCKS = blocks(PAGE)


def test_files_are_read_as_the_page_shows(workplace, capsys):
    (script,) = [block for block in BLOCKS if block.language == "python" and not block.file]
    (shown,) = [block.text for block in BLOCKS if block.language == "text"]
    run(script, PAGE)
    assert capsys.readouterr().out == shown


def test_a_source_of_ones_own_takes_under_30_lines_and_is_one(workplace):
    (block,) = [block for block in BLOCKS if block.file == "arrays.py"]
    assert len([line for line in block.text.splitlines()[1:] if line]) < 30
    write_files(PAGE, workplace)
    from arrays import Arrays

    for number in range(3):
        np.save(workplace / f"{number}.npy", np.arange(10 * number))
    source = Arrays(workplace)
    assert isinstance(source, Source)
    rows = check_starts(source)
    assert rows["2.npy"] == list(range(20))
    (workplace / "2.npy").write_bytes(b"")
    with pytest.raises(ShardError, match=r"2\.npy"):
        source.open("2.npy", 0)
