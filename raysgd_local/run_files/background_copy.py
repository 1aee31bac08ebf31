"""Files of a local folder, brought in the background to storage that is elsewhere and may be away."""

from __future__ import annotations

from collections.abc import Set
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from raysgd_local.run_files.storage import Storage


class Copies:
    """Copies some files at a time. An object store that is away keeps a writer waiting for a minute and longer."""

    def __init__(self, folder: Path, storage: Storage) -> None:
        self._folder, self._storage = folder, storage
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="copy-out")
        self._names: frozenset[str] = frozenset()
        self._running: Future[None] | None = None

    @property
    def busy(self) -> bool:
        return self._running is not None and not self._running.done()

    def start(self, names: Set[str]) -> None:
        """Copy these files, as they are then."""
        self._names = frozenset(names)
        self._running = self._thread.submit(self.copy, self._names)

    def copy(self, names: Set[str]) -> None:
        """The same in this thread, until it is done. Raises `OSError` where that can't be."""
        for name in sorted(names):
            self._storage.write(name, (self._folder / name).read_bytes())

    def ended(self) -> tuple[frozenset[str], str] | None:
        """Of the files copied last, the names of those to copy again, and why; waits for them. None if none were."""
        running, self._running = self._running, None
        if running is None:
            return None
        try:
            running.result()
        except OSError as error:
            return self._names, str(error)
        return frozenset(), ""
