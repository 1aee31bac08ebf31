"""Which files a path means, and which source reads them."""

from __future__ import annotations

import os
import pickle

import pytest
from pyarrow import fs
from torch.utils.data import IterableDataset, TensorDataset

from raysgd_local.errors import InputError
from raysgd_local.sources import (
    JsonLines,
    Mds,
    Parquet,
    Source,
    TextLines,
    TorchIterable,
    WebDatasetTar,
    as_source,
    files,
    shard_names,
)


def put(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n", encoding="utf-8")


@pytest.fixture
def corpus(tmp_path):
    put(tmp_path, "b.txt", "a.txt", "deep/er/c.txt", "d.TXT.gz", ".hidden.txt", "_temporary/e.txt", "README.md")
    return tmp_path


def test_a_directory_is_all_its_files_of_the_kind_sorted_but_hidden_ones(corpus):
    assert TextLines(corpus).shards() == ("a.txt", "b.txt", "d.TXT.gz", "deep/er/c.txt")
    assert TextLines(f"{corpus}/").shards() == TextLines(f"file://{corpus}").shards() == TextLines(corpus).shards()


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("*.txt", ["a.txt", "b.txt"]),
        ("[a]*", ["a.txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("**/*.txt", ["_temporary/e.txt", "a.txt", "b.txt", "deep/er/c.txt"]),
        ("*/er/*", ["deep/er/c.txt"]),
        ("deep/**", ["deep/er/c.txt"]),
        ("README*", ["README.md"]),
        (".h*", [".hidden.txt"]),
    ],
)
def test_a_glob_takes_whatever_matches(corpus, glob, names):
    relative = [name.removeprefix("deep/") if glob.startswith("deep/") else name for name in names]
    assert TextLines(corpus / glob).shards() == tuple(relative)
    if "?" not in glob:  # in a URI it begins the options
        assert TextLines(f"file://{corpus}/{glob}").shards() == tuple(relative)


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path):
    put(tmp_path, "a[1].txt", "a1.txt")
    assert TextLines(tmp_path / "a[1].txt").shards() == ("a[1].txt",)


def test_names_are_the_same_wherever_the_root_lies(tmp_path):
    put(tmp_path, "here/x/a.txt", "there/else/x/a.txt")
    assert TextLines(tmp_path / "here").shards() == TextLines(tmp_path / "there/else").shards() == ("x/a.txt",)


def test_a_relative_path_means_the_same_after_the_directory_changed(corpus, monkeypatch):
    monkeypatch.chdir(corpus)
    source = TextLines("a.txt")
    monkeypatch.chdir("/")
    assert list(source.open("a.txt", 0)) == ["x"]


def test_files_of_another_file_system_are_read_like_local_ones(corpus):
    source = TextLines("deep", filesystem=fs.SubTreeFileSystem(str(corpus), fs.LocalFileSystem()))
    assert list(source.open("er/c.txt", 0)) == ["x"]
    assert source.rows("er/c.txt") == 1
    assert list(TextLines(str(corpus), filesystem=fs.LocalFileSystem()).open("a.txt", 0)) == ["x"]


def test_a_machine_that_gets_a_source_looks_up_its_own_files(corpus):
    source = TextLines(corpus)
    assert len(source.shards()) == 4
    sent = pickle.dumps(source)
    (corpus / "a.txt").unlink()
    assert len(pickle.loads(sent).shards()) == 3


@pytest.mark.parametrize("path", ["nothing", "nothing/*.txt", "*.none", "empty", "fifo"])
def test_a_path_with_no_file_is_refused_with_what_is_allowed(tmp_path, path):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for kind in (TextLines, JsonLines, Parquet, WebDatasetTar):
        source = kind(tmp_path / path)
        with pytest.raises(InputError, match="a file, a directory or a glob") as caught:
            source.shards()
        assert str(tmp_path / path) in str(caught.value)
        assert kind.ENDINGS[0] in str(caught.value)
    with pytest.raises(InputError, match=r"path: .* is not allowed"):
        files(tmp_path / path).shards()


@pytest.mark.parametrize("path", [None, 3, "", b"x", "a\0b", ["a.txt"]])
def test_what_is_no_path_is_refused(path):
    for make in (TextLines, Parquet, files, Mds):
        with pytest.raises(InputError, match="path"):
            make(path)


@pytest.mark.parametrize("path", ["nosuch://bucket/x.txt", "nosuch://bucket/*.txt"])
def test_a_uri_that_no_file_system_takes_is_refused(path):
    with pytest.raises(InputError, match="nosuch"):
        TextLines(path).shards()


def test_a_file_beside_its_compressed_copy_is_refused(tmp_path):
    put(tmp_path, "a.txt", "a.txt.gz")
    with pytest.raises(InputError, match=r"a\.txt and a\.txt\.gz"):
        TextLines(tmp_path).shards()
    assert TextLines(tmp_path / "*.txt").shards() == ("a.txt",)


def test_files_that_links_lead_to_twice_are_refused_and_links_to_others_are_taken(tmp_path):
    put(tmp_path, "set/a.txt", "elsewhere/b.txt")
    (tmp_path / "set" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "broken.txt").symlink_to("/nowhere/at/all")
    assert TextLines(tmp_path / "set").shards() == ("a.txt", "more/b.txt")
    for link, target in (("c.txt", "a.txt"), ("itself", ".")):
        (tmp_path / "set" / link).symlink_to(target)
        with pytest.raises(InputError, match=r"a\.txt and .* is not allowed; allowed: each file once"):
            TextLines(tmp_path / "set").shards()
        (tmp_path / "set" / link).unlink()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", TextLines),
        ("a.text.zst", TextLines),
        ("a.JSONL", JsonLines),
        ("a.json.gz", JsonLines),
        ("a.ndjson", JsonLines),
        ("a.parquet", Parquet),
        ("a.tar", WebDatasetTar),
        ("a.tar.gz", WebDatasetTar),
        ("a.tgz", WebDatasetTar),
    ],
)
def test_the_ending_chooses_the_source(tmp_path, name, kind):
    put(tmp_path, f"x/{name}", "x/README.md", "x/_SUCCESS")
    for path in (tmp_path / "x" / name, tmp_path / "x", f"{tmp_path}/x/a*", f"file://{tmp_path}/x"):
        source = files(path)
        assert type(source) is kind
        assert shard_names(source) == (name,)


def test_a_directory_with_an_index_of_shards_is_an_mds_data_set(tmp_path):
    (tmp_path / "index.json").write_text('{"version": 2, "shards": []}', encoding="utf-8")
    assert type(files(tmp_path)) is Mds


def test_files_of_several_kinds_or_of_none_are_refused(tmp_path):
    put(tmp_path, "mixed/a.txt", "mixed/b.parquet", "none/a.bin")
    with pytest.raises(InputError, match="found Parquet files and text files"):
        files(tmp_path / "mixed")
    with pytest.raises(InputError, match="found none of them"):
        files(tmp_path / "none")


class Own:
    def __init__(self, names):
        self.names = names

    def shards(self):
        return self.names

    def rows(self, shard):
        return 1

    def open(self, shard, start):
        yield from [shard][start:]


@pytest.mark.parametrize(("names", "told"), [([], "none"), (["a", "b", "a"], "'a'"), (["a", 3], "3")])
def test_names_of_shards_are_checked(names, told):
    with pytest.raises(InputError, match=f"shards: .*{told}"):
        shard_names(Own(names))


class Stream(IterableDataset):
    def __iter__(self):
        return iter([1])


class NamedStream(Stream):
    def shards(self):
        return ["a"]

    def open(self, shard, start):
        yield from [1, 2][start:]


def test_a_source_is_taken_as_it_is_and_a_map_style_data_set_needs_none(corpus):
    own = Own(["a"])
    assert isinstance(own, Source)
    assert as_source(own) is own
    assert as_source(TensorDataset()) is None
    assert as_source([1, 2]) is None
    assert type(as_source(str(corpus / "a.txt"))) is TextLines
    assert type(as_source(corpus)) is TextLines


def test_a_stream_that_names_its_shards_is_a_source_and_another_is_told_how(corpus):
    source = as_source(NamedStream())
    assert type(source) is TorchIterable
    for stream in (Stream(), iter([1]), 3, None):
        with pytest.raises(InputError, match=r"shards\(\).* and open\(shard, start\)"):
            as_source(stream)
        with pytest.raises(InputError, match=r"shards\(\).* and open\(shard, start\)"):
            TorchIterable(stream)
