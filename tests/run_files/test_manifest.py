"""`manifest.json`: its checksum, consistency for those that have none, and the survey of a run's checkpoints."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from raysgd_local import config
from raysgd_local.errors import CheckpointError, InputError
from raysgd_local.run.resume import asked_checkpoint, to_resume
from raysgd_local.run_files import manifest as manifests
from raysgd_local.run_files.checkpoint_survey import survey
from raysgd_local.run_files.manifest import decoded, encoded
from raysgd_local.run_files.storage import Storage

OLD = Path(__file__).parents[1] / "compatibility/fixtures/redundant"
SCHEDULE = config.load(OLD / "config.yaml").algorithm.schedule


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with the checkpoints 1 and 2, and two more that are like the second but for the name; all are sealed."""
    path = Path(shutil.copytree(OLD, tmp_path / "run"))
    for name in ("000003", "000004"):
        shutil.copytree(path / "checkpoints/000002", path / "checkpoints" / name)
        file = path / "checkpoints" / name / "manifest.json"
        file.write_text(file.read_text().replace("000002", name))
    for file in (path / "checkpoints").glob("*/manifest.json"):
        file.write_bytes(encoded(json.loads(file.read_text())))
    return path


def of(run: Path, name: str) -> Path:
    return run / "checkpoints" / name / "manifest.json"


def test_every_single_bit_of_a_manifest_that_flips_is_found(run: Path) -> None:
    content = of(run, "000002").read_bytes()
    plain = decoded(content, "000002")
    assert plain.sealed
    for place in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            with pytest.raises(CheckpointError):
                decoded(bytes(damaged), "000002")


def test_a_bit_that_flips_in_any_file_of_a_checkpoint_leads_to_the_one_before(run: Path) -> None:
    storage = Storage.at(str(run))
    for file in sorted((run / "checkpoints/000004").iterdir()):
        content = file.read_bytes()
        for place in (0, 100, len(content) // 2, len(content) - 1):
            file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
            found = survey(storage, SCHEDULE)
            assert found.manifest is not None
            assert found.manifest["name"] == "000003"
            assert list(found.damaged) == ["000004"]
            assert [plain["name"] for plain in found.older] == ["000001", "000002"]
        file.write_bytes(content)


def test_an_older_manifest_has_no_checksum_and_is_read() -> None:
    for name in ("000001", "000002"):
        found = decoded((OLD / "checkpoints" / name / "manifest.json").read_bytes(), name)
        assert not found.sealed
        assert [part.rank for part in found.parts] == [0, 1]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["schema"], 3),
        (["schema"], True),
        (["schema"], "1"),
        (["name"], "000001"),
        (["name"], "x"),
        (["name"], None),
        (["members"], []),
        (["members"], ["w0", "w0"]),
        (["members"], "w0"),
        (["everyone"], "yes"),
        (["view"], 0),
        (["shards"], {}),
        (["shards"], []),
        (["shards", 0, "rank"], 1),
        (["shards", 0, "path"], "../../../etc/passwd"),
        (["shards", 0, "sha256"], None),
        (["replicated"], None),
        (["replicated", "round"], -1),
        (["replicated", "round"], 47),
        (["replicated", "round"], 45),
        (["replicated", "round"], 46.5),
        (["replicated", "round"], 10**30),
        (["replicated", "steps"], 107),
        (["replicated", "samples"], "1693"),
        (["replicated", "evaluations"], 5),
        (["replicated", "elapsed_s"], float("nan")),
        (["replicated", "cursors"], [128]),
        (["replicated", "cursors"], [128, 10_000]),
        (["replicated", "lengths"], [719, 719]),
        (["replicated", "schedule"], {}),
        (["replicated", "schedule", "period", "tau"], 0),
        (["replicated", "schedule", "period", "mode"], "gradient"),
        (["replicated", "pacing", "paces", 0, "share"], -1.0),
        (["replicated", "later"], 1),
        (["ledger", "samples"], 10**12),
        (["ledger", "consumed"], "00"),
        (["ledger", "consumed"], "zz"),
        (["deal"], None),
        (["deal", "chunks"], 10**12),
        (["deal", "shares"], [1.0]),
        (["deal", "holders", 0], [7]),
        (["placement", "holders"], [["w0"]]),
        (["sha256"], "0" * 64),
    ],
)
def test_an_older_manifest_that_contradicts_itself_or_the_tables_leads_to_the_one_before(
    tmp_path: Path, path: list, value: object
) -> None:
    run = Path(shutil.copytree(OLD, tmp_path / "run"))
    plain = json.loads(of(run, "000002").read_text())
    place = plain
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    of(run, "000002").write_text(json.dumps(plain))
    found = survey(Storage.at(str(run)), SCHEDULE)
    assert found.manifest is not None
    assert found.manifest["name"] == "000001"
    assert list(found.damaged) == ["000002"]


@pytest.mark.parametrize("text", ["{}", "[]", "null", "", "{", "[" * 100_000, '{"schema": 99}', "\x00" * 50])
def test_what_is_no_manifest_leads_to_the_checkpoint_before(run: Path, text: str) -> None:
    of(run, "000004").write_text(text)
    found = survey(Storage.at(str(run)), SCHEDULE)
    assert found.manifest is not None
    assert found.manifest["name"] == "000003"


@pytest.mark.timeout(30)
def test_a_directory_or_a_pipe_in_a_files_place_leads_to_the_checkpoint_before(run: Path) -> None:
    of(run, "000004").unlink()
    of(run, "000004").mkdir()
    part = run / "checkpoints/000003/rank-1.pt"
    part.unlink()
    os.mkfifo(part)
    found = survey(Storage.at(str(run)), SCHEDULE)
    assert found.manifest is not None
    assert found.manifest["name"] == "000002"


def test_a_checkpoint_that_is_asked_for_is_taken_and_no_other(run: Path) -> None:
    storage = Storage.at(str(run))
    for asked in (str(run / "checkpoints/000003"), f"{run}/checkpoints/000003/", "000003"):
        found = to_resume(storage, asked, SCHEDULE)
        assert found.manifest is not None
        assert found.manifest["name"] == "000003"
        assert [plain["name"] for plain in found.older] == ["000001", "000002"]
        assert found.newer == ("000004",)
    part = run / "checkpoints/000003/rank-1.pt"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"rank-1\.pt is damaged.*good ones before it: 000001, 000002"):
        to_resume(storage, str(run / "checkpoints/000003"), SCHEDULE)
    with pytest.raises(CheckpointError, match="it is not a finished checkpoint"):
        to_resume(storage, str(run / "checkpoints/000007"), SCHEDULE)


def test_going_back_is_told_with_the_checkpoints_that_it_removes(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to_resume(Storage.at(str(run)), str(run / "checkpoints/000002"), SCHEDULE)
    assert "going back to checkpoint 000002" in (told := capsys.readouterr().err)
    assert "(000003, 000004)" in told


def test_only_a_path_of_this_run_names_a_checkpoint_of_it(run: Path, tmp_path: Path) -> None:
    storage = Storage.at(str(run))
    assert asked_checkpoint(storage, str(run)) is None
    assert asked_checkpoint(storage, "auto") is None
    for other in (str(tmp_path / "other/checkpoints/000001"), str(tmp_path), str(run / "rounds.csv"), "000009"):
        with pytest.raises(InputError, match="a run goes on in its own directory"):
            asked_checkpoint(storage, other)


def test_a_remote_checkpoint_is_named_by_its_uri() -> None:
    storage = Storage(Storage.at("/tmp").filesystem.__class__(), "bucket/runs/one")
    remote = type("Remote", (Storage,), {"local": None})(storage.filesystem, storage.root)
    assert asked_checkpoint(remote, "s3://bucket/runs/one/checkpoints/000003?region=x") == "000003"
    assert asked_checkpoint(remote, "s3://bucket/runs/one") is None
    with pytest.raises(InputError, match="its own directory"):
        asked_checkpoint(remote, "s3://bucket/runs/two/checkpoints/000003")


def test_rows_that_a_table_lacks_are_told_and_the_checkpoint_is_taken(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (run / "rounds.csv").read_text().splitlines(keepends=True)
    (run / "rounds.csv").write_text("".join(lines[:31] + lines[41:44]))
    found = to_resume(Storage.at(str(run)), "auto", SCHEDULE)
    assert found.manifest is not None
    assert found.manifest["name"] == "000004"
    assert "rounds.csv lacks 13 rounds from 31 to 46" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("rounds.csv", b"\xff", "rounds.csv, line 3"),
        ("rounds.csv", b'"', "rounds.csv, line 3"),
        ("rounds.csv", b"x", "round is 'x"),
        ("evals.csv", b",", "evals.csv, line 2"),
        ("events.jsonl", b"}", "events.jsonl, line 3"),
    ],
)
def test_a_table_that_cannot_be_read_refuses_the_resume_by_line(
    run: Path, name: str, content: bytes, told: str
) -> None:
    lines = (run / name).read_bytes().split(b"\n")
    place = int(told[-1]) - 1 if told[-1].isdigit() else 2
    lines[place] = content + lines[place]
    (run / name).write_bytes(b"\n".join(lines))
    with pytest.raises(InputError, match="whose files can be read") as caught:
        to_resume(Storage.at(str(run)), "auto", SCHEDULE)
    assert told in str(caught.value)
    assert f"move {name} to another place" in str(caught.value)
    (run / name).unlink()
    assert to_resume(Storage.at(str(run)), "auto", SCHEDULE).manifest is not None


def test_a_checkpoint_of_another_schedule_is_told_as_such(run: Path) -> None:
    from raysgd_local.algorithms.schedules import Hierarchical

    with pytest.raises(CheckpointError, match="does not fit this run's schedule"):
        to_resume(Storage.at(str(run)), str(run), Hierarchical())


def test_the_checksum_is_the_files_first_entry(run: Path) -> None:
    written = json.loads(of(run, "000001").read_text())
    assert next(iter(written)) == "sha256"
    assert written.keys() - {"sha256"} == decoded(of(run, "000001").read_bytes(), "000001").plain.keys()
    assert manifests.MANIFEST == "manifest.json"


def test_a_run_that_keeps_all_checkpoints_knows_some_of_them(run: Path) -> None:
    found = survey(Storage.at(str(run)), SCHEDULE, most=1)
    assert found.manifest is not None
    assert found.manifest["name"] == "000004"
    assert [plain["name"] for plain in found.older] == ["000003"]
