"""The process's global random generators: torch's, Python's and NumPy's."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# torch allocates the tensor of its generator's state while it holds the generator's mutex. A garbage collection there
# can switch to a Python thread that waits for the mutex while it holds the GIL: a deadlock. So members that are threads
# of one process take turns.
_TURN = threading.RLock()
os.register_at_fork(before=_TURN.acquire, after_in_parent=_TURN.release, after_in_child=_TURN.release)


def generators() -> dict[str, Any]:
    """Return the state of every global random generator, in types that `torch.load(weights_only=True)` accepts."""
    numpy_state: Any = np.random.get_state(legacy=True)
    with _TURN:
        torch_state = torch.get_rng_state()
    state: dict[str, Any] = {
        "torch": torch_state,
        "python": random.getstate(),
        "numpy": (numpy_state[0], torch.from_numpy(np.asarray(numpy_state[1]).astype(np.int64)), *numpy_state[2:]),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_generators(state: dict[str, Any]) -> None:
    """Restore the state that `generators` returned."""
    with _TURN:
        torch.set_rng_state(state["torch"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state["numpy"]
    numpy_state: Any = (name, keys.numpy().astype(np.uint32), *rest)
    np.random.set_state(numpy_state)
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def seed_generators(*parts: int) -> None:
    """Seed every global generator from integers, so that (seed, view, rank) gives each worker its own stream."""
    _seed(torch.manual_seed, parts)


def seed_processor_generators(*parts: int) -> None:
    """Seed as `seed_generators` does, except the GPUs' generators.

    As long as CUDA is not initialised, `torch.manual_seed` queues the call with its stack trace: too expensive, in
    time and memory, for a call per sample.
    """
    _seed(torch.default_generator.manual_seed, parts)


def _seed(seed_torch: Callable[[int], object], parts: tuple[int, ...]) -> None:
    words = np.random.SeedSequence(parts).generate_state(3)
    with _TURN:
        seed_torch(int(words[0]))
    random.seed(int(words[1]))
    np.random.seed(int(words[2]))


def processor_generators_mark() -> tuple[Any, ...]:
    """Return a value that changes whenever a number is drawn from one of the CPU's generators."""
    with _TURN:
        torch_state = torch.get_rng_state()
    numpy_state: Any = np.random.get_state()
    return torch_state.numpy().tobytes(), random.getstate(), numpy_state[1].tobytes(), *numpy_state[2:]


@contextmanager
def processor_generators_kept() -> Iterator[None]:
    """Restore the CPU's generators at the end of a `with` block."""
    with _TURN:
        before = torch.get_rng_state()
    others = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        with _TURN:
            torch.set_rng_state(before)
        random.setstate(others[0])
        np.random.set_state(others[1])
