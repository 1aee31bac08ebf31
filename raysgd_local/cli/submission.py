"""Submit a run to a remote cluster as a Ray job, and follow its log to the end."""

from __future__ import annotations

import asyncio
import os
import socket
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from raysgd_local import signals
from raysgd_local.cli.job import Job
from raysgd_local.console import say
from raysgd_local.errors import InputError, RunLostError

INTERRUPTED = 130
_RUN = "raysgd-local run"  # the job's label
_NOT_IN_JOBS = ["runs", ".git", "__pycache__", ".venv"]
_SILENCE_LIMIT_S = 60.0
_AGAIN_AFTER_S = 0.5
_OTHER_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")

# Make `ray job stop` act like Ctrl-C, and leave time for a checkpoint.
_ENVIRONMENT = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "60"}


def submit(job: Job, address: str) -> int:
    """Submit `job` to the job server at `address`, show its log, and return its exit status (130 after Ctrl-C).

    Raises `InputError` if there is no job server that accepts us, or if a job is running this run already.
    """
    address = address if "://" in address else f"http://{address}"
    client = _client(address)
    _refuse_double(client, job, address)
    try:
        number = client.submit_job(
            entrypoint=job.entrypoint,
            runtime_env={
                "working_dir": str(job.directory),
                "excludes": _NOT_IN_JOBS,
                "env_vars": _ENVIRONMENT,
            },
            metadata={_RUN: job.run},
        )
    except (ValueError, RuntimeError) as error:  # too large, or Ray can't pack it
        raise InputError(
            "working-dir", str(job.directory), "a directory that Ray can submit", str(error)
        ) from error
    say(f"submitted as {number}")
    try:
        return _followed(client, number)
    except KeyboardInterrupt:
        signals.conclude(f"the job goes on; {_how(number, address)}")
        return INTERRUPTED
    except RunLostError as error:
        raise RunLostError(f"{error}; {_how(number, address)}") from error


def _how(number: str, address: str) -> str:
    there = f"{number} --address {address}"
    return f"follow it with: ray job logs --follow {there}; end it, with a checkpoint: ray job stop {there}"


def _client(address: str) -> JobSubmissionClient:
    for name in _OTHER_ADDRESSES:  # Ray would prefer these to the requested address
        os.environ.pop(name, None)
    try:
        _knock(address)
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        allowed = "the cluster's token, in ~/.ray/auth_token or RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token"
        raise InputError("token", None, allowed, str(error).splitlines()[0]) from error
    except (OSError, ValueError) as error:
        raise InputError(
            "address", address, "the address of a Ray job server: http://HOST:8265", str(error)
        ) from error
    except RuntimeError as error:
        raise InputError("address", address, "a job server of Ray 2, and ray[default] here", str(error)) from error


def _knock(address: str) -> None:
    """Raise `OSError` if no server listens: Ray's client would wait for minutes."""
    parts = urlsplit(address)
    socket.create_connection(
        (parts.hostname or "", parts.port or {"https": 443}.get(parts.scheme, 80)), timeout=5
    ).close()


def _refuse_double(client: JobSubmissionClient, job: Job, address: str) -> None:
    """Raise `InputError` if a job is running this run already: two would write into one directory."""
    for other in client.list_jobs():
        if (other.metadata or {}).get(_RUN) == job.run and not other.status.is_terminal():
            number = other.submission_id or ""
            raise InputError("name", job.run, "a run without a running job", _how(number, address))


def _followed(client: JobSubmissionClient, number: str) -> int:
    """Show the log until the job is over. Reconnect if the connection breaks, without repeating lines."""
    log, lost_s = _Log(client, number), None
    while True:
        began_s = monotonic()
        try:
            asyncio.run(log.show())
            info = client.get_job_info(number)
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            now = monotonic()
            if lost_s is None or now - began_s > _SILENCE_LIMIT_S:  # until now it was connected
                lost_s = now
            if now - lost_s > _SILENCE_LIMIT_S:
                raise RunLostError(f"no answer from the job server for {_SILENCE_LIMIT_S:g} s: {error}") from error
        else:
            lost_s = None
            if info.status.is_terminal():
                return _exit_status(info)
        sleep(_AGAIN_AFTER_S)


class _Log:
    """Prints a job's log on standard output. The server sends it from the beginning with every connection."""

    def __init__(self, client: JobSubmissionClient, number: str) -> None:
        self._client, self._number = client, number
        self._shown = 0  # characters

    async def show(self) -> None:
        """Print new text until the connection ends."""
        seen = 0
        async for text in self._client.tail_job_logs(self._number):
            print(text[max(0, self._shown - seen) :], end="", flush=True)
            seen += len(text)
            self._shown = max(self._shown, seen)


def _exit_status(info: Any) -> int:
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.status == JobStatus.STOPPED:
        say("the job was stopped; submit it again to continue")
        return INTERRUPTED
    code: int | None = info.driver_exit_code
    if not code:  # Ray could not run it, or lost the head's processes
        say(info.message)
        return RunLostError.exit_status
    return code if code > 0 else 128 - code  # ended by a signal: the convention of shells
