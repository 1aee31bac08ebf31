"""Streams of Hugging Face's datasets."""

from __future__ import annotations

import json
from itertools import chain

import pyarrow as pa
import pytest
from pyarrow import parquet as pq
from shards import broken_at, check_starts
from torch.utils.data import DataLoader, IterableDataset

from raysgd_local.errors import InputError, ShardError
from raysgd_local.sources import HuggingFace, as_source, huggingface

datasets = pytest.importorskip("datasets", reason="needs Hugging Face's datasets: raysgd-local[huggingface]")


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """So small shards have remembered states."""
    monkeypatch.setattr(huggingface, "_BATCH", 4)
    monkeypatch.setattr(huggingface, "_STEP", 8)


@pytest.fixture
def files(tmp_path):
    for part in range(3):
        rows = [{"id": part * 1000 + row, "text": f"τ{row}"} for row in range(90 + part)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{part}.parquet", row_group_size=20)
    return tmp_path


@pytest.fixture
def stream(files, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(files / "cache"))
    paths = sorted(map(str, files.glob("*.parquet")))
    return datasets.load_dataset(
        "parquet", data_files=paths, split="train", streaming=True, cache_dir=str(files / "cache")
    )


def ids(rows):
    return {shard: [int(row["id"]) for row in found] for shard, found in rows.items()}


WHOLE = {f"shard-{part:05}-of-00003": [part * 1000 + row for row in range(90 + part)] for part in range(3)}


def test_files_are_shards_and_are_read_from_anywhere(stream):
    source = HuggingFace(stream)
    rows = check_starts(source, starts=12)
    assert ids(rows) == WHOLE
    assert rows["shard-00000-of-00003"][5] == {"id": 5, "text": "τ5"}
    assert source.rows("shard-00000-of-00003") is None


def triple(batch):
    return {"id": [number for number in batch["id"] for _ in range(3)], "text": ["x"] * 3 * len(batch["id"])}


def plus_one(row):
    return {"id": row["id"] + 1}


def is_even(row):
    return row["id"] % 2 == 0


def numbers(parts):
    for part in parts:
        for row in range(50):
            yield {"id": part * 100 + row}


def generated():
    return datasets.IterableDataset.from_generator(numbers, gen_kwargs={"parts": [1, 2, 3]})


CHAINS = {
    "map": lambda stream: stream.map(plus_one),
    "map of batches": lambda stream: stream.map(triple, batched=True, batch_size=7),
    "filter": lambda stream: stream.filter(is_even),
    "torch": lambda stream: stream.with_format("torch").select_columns(["id"]),
    "numpy": lambda stream: stream.with_format("numpy").select_columns(["id"]),
    "take": lambda stream: stream.take(40),
    "skip": lambda stream: stream.skip(40),
    "shuffle": lambda _: generated().shuffle(seed=3, buffer_size=25),
    "shuffle, then map": lambda _: generated().shuffle(seed=3, buffer_size=25).map(plus_one),
    "generator": lambda _: generated(),
    "interleave": lambda _: datasets.interleave_datasets([generated(), generated().filter(is_even)]),
    "interleave by chance": lambda _: datasets.interleave_datasets([generated()] * 2, [0.2, 0.8], seed=1),
    "concatenate": lambda _: datasets.concatenate_datasets([generated(), generated()]),
    "map-style made a stream": lambda _: datasets.Dataset.from_dict({"id": range(70)}).to_iterable_dataset(4),
}


@pytest.mark.parametrize("name", CHAINS)
def test_what_was_done_to_a_stream_changes_nothing_of_where_rows_are(stream, name):
    changed = CHAINS[name](stream)
    source = HuggingFace(changed)
    rows = {shard: list(source.open(shard, 0)) for shard in source.shards()}
    whole = [int(row["id"]) for row in changed]
    if name in ("take", "skip"):  # each shard takes or skips its part
        assert len(whole) == sum(map(len, rows.values()))
    elif not name.startswith("interleave"):  # which ends with the first stream that does, here in each shard
        assert sorted(chain.from_iterable(ids(rows).values())) == sorted(whole)
    assert sum(map(len, rows.values())) > 30
    for shard, expected in rows.items():
        for start in (0, 1, 8, 16, 17, 30, 29, 9, len(expected)):
            assert ids({"": source.open(shard, start)}) == ids({"": expected[start:]}), (shard, start)


def test_a_shard_that_is_opened_again_is_read_from_a_remembered_state_but_not_through_a_buffer():
    seen = []

    def noted(row):
        seen.append(row["id"])
        return row

    shard = "shard-00001-of-00003"
    for changed, most in (
        (generated().map(noted), 24),
        (generated().map(noted).shuffle(seed=1, buffer_size=10), 50),
    ):
        source = HuggingFace(changed)
        expected = list(source.open(shard, 0))
        seen.clear()
        assert list(source.open(shard, 40)) == expected[40:]
        assert len(seen) <= most
    assert len(seen) == 50


class InALoader(IterableDataset):
    def __init__(self, source):
        self.source = source

    def __iter__(self):
        for shard in self.source.shards():
            yield from (row["id"] for row in self.source.open(shard, 0))


def test_a_process_of_a_loader_reads_whole_shards_as_any_other(stream):
    loader = DataLoader(InALoader(HuggingFace(stream)), batch_size=None, num_workers=2)
    found = sorted(int(number) for number in loader)
    assert found == sorted(2 * list(chain.from_iterable(WHOLE.values())))


def test_streams_are_recognised_and_map_style_data_sets_left_alone(stream):
    assert type(as_source(stream)) is HuggingFace
    assert as_source(datasets.Dataset.from_dict({"id": [1]})) is None
    with pytest.raises(InputError, match=r"dataset: \['test', 'train'\] is not allowed; allowed: one split"):
        as_source(datasets.IterableDatasetDict({"train": stream, "test": stream}))


def test_a_part_of_a_stream_and_tables_are_refused(stream):
    from datasets.distributed import split_dataset_by_node

    with pytest.raises(InputError, match="split_dataset_by_node"):
        HuggingFace(split_dataset_by_node(stream, rank=0, world_size=3))
    with pytest.raises(InputError, match="a format of single values"):
        list(HuggingFace(stream.with_format("arrow")).open("shard-00000-of-00003", 0))


def test_a_file_that_is_missing_or_damaged_is_named_with_shard_and_row(files, stream):
    source = HuggingFace(stream)
    assert len(source.shards()) == 3
    (files / "0.parquet").unlink()
    (files / "1.parquet").write_bytes(b"PAR1")
    for shard in source.shards()[:2]:
        assert broken_at(source, shard)[0] == []
    with pytest.raises(ShardError, match=r"shard 'other' can't be read at row 3: .*shard-00000-of-00003"):
        list(source.open("other", 3))


def test_json_that_is_cut_off_is_named(tmp_path):
    lines = [json.dumps({"id": number}) for number in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + '\n{"id', encoding="utf-8")
    stream = datasets.load_dataset(
        "json",
        data_files=str(tmp_path / "a.jsonl"),
        split="train",
        streaming=True,
        cache_dir=str(tmp_path / "cache"),
    )
    broken_at(HuggingFace(stream), "shard-00000-of-00001")


def test_an_error_of_the_users_code_stays_what_it_is(stream):
    def fails(row):
        raise ValueError("a bug in the user's code")

    with pytest.raises(ValueError, match="a bug in the user's code") as caught:
        list(HuggingFace(stream.map(fails)).open("shard-00000-of-00003", 0))
    assert not isinstance(caught.value, ShardError)
