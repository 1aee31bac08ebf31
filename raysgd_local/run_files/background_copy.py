"""Copy files of a local folder to remote storage in the background. The storage may be unreachable for a while."""

from __future__ import annotations

from collections.abc import Set
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from raysgd_local.run_files.storage import Storage


class Copies:
    """Copies files in a thread, because an unreachable object store blocks a writer for a minute and longer."""

    def __init__(self, folder: Path, storage: Storage) -> None:
        self._folder, self._storage = folder, storage
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="copy-out")
        self._names: frozenset[str] = frozenset()
        self._running: Future[None] | None = None

    @property
    def busy(self) -> bool:
        return self._running is not None and not self._running.done()

    def start(self, names: Set[str]) -> None:
        """Begin to copy these files, with the content that they have when their turn comes."""
        self._names = frozenset(names)
        self._running = self._thread.submit(self.copy, self._names)

    def copy(self, names: Set[str]) -> None:
        """Copy these files in this thread. Raises `OSError` if the storage fails."""
        for name in sorted(names):
            self._storage.write(name, (self._folder / name).read_bytes())

    def ended(self) -> tuple[frozenset[str], str] | None:
        """Wait for the copies. Return the files to copy again and the reason; None if nothing was begun."""
        running, self._running = self._running, None
        if running is None:
            return None
        try:
            running.result()
        except OSError as error:
            return self._names, str(error)
        return frozenset(), ""
