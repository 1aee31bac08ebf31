"""`submit`: what it asks the cluster for, what it refuses, and how it follows a job. The job server is played."""

from __future__ import annotations

import shlex
import subprocess
import sys
import types
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus

from raysgd_local.cli import app, submission

HERE = ["submit", "--name", "n", "--storage", "/shared"]


class JobServer:
    """A job that writes `log` and ends; the connection breaks after each of `breaks` characters."""

    log = "one\ntwo\nthree\n"

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.jobs: list[Any] = []
        self.ends = types.SimpleNamespace(status=JobStatus.SUCCEEDED, driver_exit_code=0, message="")
        self.breaks: list[int] = []
        self.refuses: Exception | None = None
        self.interrupted = False
        self.now, self.lasts_s = 0.0, 0.0  # each connection that long

    def __call__(self, address: str) -> JobServer:
        if self.refuses is not None:
            raise self.refuses
        self.address = address
        return self

    def list_jobs(self) -> list[Any]:
        return self.jobs

    def submit_job(self, **asked: Any) -> str:
        self.asked.append(asked)
        return "raysubmit_1"

    async def tail_job_logs(self, number: str) -> AsyncIterator[str]:
        if self.interrupted:
            raise KeyboardInterrupt
        self.now += self.lasts_s
        end = self.breaks.pop(0) if self.breaks else len(self.log)
        for at in range(0, end, 5):
            yield self.log[at : min(end, at + 5)]
        if end < len(self.log):
            raise RuntimeError("the connection broke")

    def get_job_info(self, number: str) -> Any:
        return self.ends


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> JobServer:
    played = JobServer()
    monkeypatch.setattr(submission, "JobSubmissionClient", played)
    monkeypatch.setattr(submission, "_knock", lambda address: None)
    monkeypatch.setattr(submission, "sleep", lambda s: None)
    monkeypatch.setattr(submission, "monotonic", lambda: played.now)
    monkeypatch.chdir(tmp_path)
    return played


def test_the_job_is_the_run_that_goes_on_by_itself(server: JobServer, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "c.yaml").write_text("task: {name: digits}")
    words = ["conf/c.yaml", "--method", "k-avg", "--set", "seed=3", "--chaos", "kill:1@round=3"]
    assert app.run([*HERE, *words, "--address", "10.0.0.1:8265"]) == 0
    (asked,) = server.asked
    begins = ["raysgd-local", "train", *words[:5], "--storage", "/shared", "--name", "n", "--resume", "auto"]
    assert shlex.split(asked["entrypoint"]) == [*begins, *words[5:]]
    assert asked["runtime_env"]["working_dir"] == "."
    assert server.address == "http://10.0.0.1:8265"


def test_the_log_is_shown_once_however_often_the_connection_breaks(
    server: JobServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.breaks = [3, 0, 9]
    assert app.run(HERE) == 0
    assert capsys.readouterr().out == server.log


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 1, 1),
        (JobStatus.FAILED, 2, 2),
        (JobStatus.FAILED, -9, 137),
        (JobStatus.FAILED, None, 3),
        (JobStatus.STOPPED, None, 130),
    ],
)
def test_it_ends_as_the_job_did(server: JobServer, status: JobStatus, code: int | None, expected: int) -> None:
    server.ends = types.SimpleNamespace(status=status, driver_exit_code=code, message="why")
    assert app.run(HERE) == expected


def test_ctrl_c_says_how_to_follow_the_job_and_how_to_end_it(
    server: JobServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.interrupted = True
    assert app.run(HERE) == 130
    told = capsys.readouterr().err
    assert "ray job logs --follow raysubmit_1 --address http://127.0.0.1:8265" in told
    assert "ray job stop raysubmit_1 --address http://127.0.0.1:8265" in told


def test_it_gives_up_when_nothing_is_heard_for_a_minute(
    server: JobServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.breaks, server.lasts_s = [0] * 100, 7
    assert app.run(HERE) == 3
    assert "ray job logs --follow raysubmit_1" in capsys.readouterr().err


def test_a_connection_that_breaks_after_hours_is_made_again(
    server: JobServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.breaks, server.lasts_s = [3, 5], 9000
    assert app.run(HERE) == 0
    assert capsys.readouterr().out == server.log


def test_a_run_that_a_job_does_already_is_refused(server: JobServer, capsys: pytest.CaptureFixture[str]) -> None:
    label = {"raysgd-local run": "/shared/n"}
    other = types.SimpleNamespace(metadata=label, status=JobStatus.SUCCEEDED, submission_id="raysubmit_0")
    server.jobs = [types.SimpleNamespace(metadata=None, status=JobStatus.RUNNING, submission_id=None), other]
    assert app.run(HERE) == 0
    other.status = JobStatus.RUNNING
    assert app.run(HERE) == 2
    assert "ray job logs --follow raysubmit_0" in capsys.readouterr().err


def test_without_the_clusters_token_it_says_where_that_has_to_be(
    server: JobServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refuses = AuthenticationError("no\nreally")
    assert app.run(HERE) == 2
    assert "~/.ray/auth_token" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["submit", "--storage", "/shared"], "add --name"),
        (["submit", "--name", "n"], "storage: 'runs' is not allowed; allowed: a URI, or an absolute path"),
        ([*HERE, "--chaos", "kil:1@5s"], "did you mean 'kill'"),
        ([*HERE, "--working-dir", "absent"], "working-dir: 'absent' is not allowed"),
        ([*HERE, "absent.yaml"], "config: 'absent.yaml' is not allowed"),
        ([*HERE, "beside.yaml", "--working-dir", "files"], "config: 'beside.yaml' is not allowed"),
        ([*HERE, "--address", "http://127.0.0.1:1"], "address: 'http://127.0.0.1:1' is not allowed"),
        ([*HERE, "--address", "http://127.0.0.1:x"], "address: 'http://127.0.0.1:x' is not allowed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_ends_with_status_2_and_one_message(
    arguments: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "files").mkdir()
    (tmp_path / "beside.yaml").write_text("task: {name: digits}")
    assert app.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert told in captured.err


def test_bad_input_is_refused_before_ray_or_torch_is_loaded() -> None:
    program = (
        "import sys; from raysgd_local import cli; assert cli.run(['submit', '--name', 'n']) == 2;"
        "assert not {'ray', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
