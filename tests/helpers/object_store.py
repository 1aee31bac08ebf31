"""A server that speaks S3, in a process of its own, and can be away for a while."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

_KEY = "testing"


@dataclass(frozen=True)
class ObjectStore:
    """It has one bucket."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def place(self, path: str) -> str:
        """The URI of `path` in its bucket, with all that it takes to get there."""
        return f"s3://{_KEY}:{_KEY}@bucket/{path}?endpoint_override={self.address}&scheme=http"

    def go_away(self) -> None:
        """It answers nobody any more; connections stay, as with a network that swallows everything."""
        self.process.send_signal(signal.SIGSTOP)

    def come_back(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def object_store(log: Path) -> Iterator[ObjectStore]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    store = ObjectStore(process, port)
    try:
        _wait_until_it_answers(store)
        made = fs.S3FileSystem(
            access_key=_KEY,
            secret_key=_KEY,
            endpoint_override=store.address,
            scheme="http",
            allow_bucket_creation=True,
        )
        made.create_dir("bucket")
        yield store
    finally:
        store.come_back()
        process.kill()
        process.wait()


def _wait_until_it_answers(store: ObjectStore) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", store.port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the server did not start"
            assert store.process.poll() is None, "the server ended"
            time.sleep(0.05)
