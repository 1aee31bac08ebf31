"""Random configurations, settings and command lines: each is accepted, or refused with one short message.

They run through parsing, validation and planning, in this process; where Ray or training would begin, nothing does.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from random_configurations import Case, case
from time_limit import Hangs, time_limit

from raysgd_local.cli import app
from raysgd_local.config import Config

LONGEST = 6000  # characters of a message
FEW, PIECE, PIECES = 300, 1000, 20

MODULES = {
    "exits_on_import": "import sys; sys.exit(3)",
    "raises_on_import": "raise RuntimeError('x' * 100_000)",
    "raises_baseexception": "class Own(BaseException): ...\nraise Own('no')",
    "misbehaving": """
from dataclasses import dataclass
from raysgd_local.tasks import Task
@dataclass(frozen=True, kw_only=True)
class Broken(Task):
    def __post_init__(self): raise ZeroDivisionError("in __post_init__")
@dataclass(frozen=True, kw_only=True)
class Odd(Task):
    reports = 3
    def check(self): raise ValueError("x\\n" * 10_000)
@dataclass(frozen=True, kw_only=True)
class Exits(Task):
    def check(self): raise SystemExit(0)
class NotATask: ...
@dataclass
class Annotated:
    x: "NoSuchName" = 3
@dataclass(frozen=True, kw_only=True)
class Hints(Task):
    where: object = None
    how: "type[int]" = int
def function(): ...
""",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with the modules that cases name; everything that would train or start Ray ends there."""
    folder = tmp_path_factory.mktemp("fuzzing")
    before = list(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        for name, text in MODULES.items():
            (folder / f"{name}.py").write_text(text)
        patch.chdir(folder)
        patch.delenv("RAYSGD_DATA", raising=False)
        assert app.run(["simulate", "--timing-only", "--storage", ".", "--name", "run"]) == 0
        _stop_before_training(patch)
        yield folder
    sys.path[:] = before


def _stop_before_training(patch: pytest.MonkeyPatch) -> None:
    from raysgd_local import report
    from raysgd_local.planning import forecast, text
    from raysgd_local.run import request, simulator
    from raysgd_local.simulation.search import seed_search
    from raysgd_local.tuning import command

    class LocalSGDTrainer:
        @staticmethod
        def from_config(plan: Config, chaos: str) -> Any:
            request.from_config(plan, chaos)
            return types.SimpleNamespace(fit=lambda resume, address: types.SimpleNamespace(path="made"))

    for name, member in (("trainer", LocalSGDTrainer), ("cli.submission", None)):
        stub = types.ModuleType(f"raysgd_local.{name}")
        stub.LocalSGDTrainer, stub.submit = member, lambda job, address: 0  # type: ignore[attr-defined]
        patch.setitem(sys.modules, stub.__name__, stub)
    for module, names in (
        (forecast, ["timing_of"]),
        (text, ["print_plan"]),
        (simulator, ["simulate_run", "time_run"]),
        (report, ["render"]),
        (seed_search, ["search", "retry"]),
        (command, ["run"]),
    ):
        for name in names:
            patch.setattr(module, name, lambda *_, **__: "")


def outcome(tried: Case, folder: Path, capsys: Any) -> str:
    """Return what is wrong with a case's end; empty if nothing is."""
    for name, text in tried.files.items():
        (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        with time_limit(20):
            status = app.run(tried.arguments)
    except Hangs as error:
        return str(error)
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        told = capsys.readouterr().err
    if status == 2 and (not told.startswith("error: ") or told.count("\n") != 1):
        return f"no single message: {told[:500]!r}"
    if len(told) > LONGEST:
        return f"a message of {len(told):,} characters: {told[:500]!r}"
    return "" if status in (0, 2) or (status == 1 and tried.arguments[0] == "replay") else f"status {status}"


def failures(numbers: range, folder: Path, capsys: Any) -> list[str]:
    found = []
    for number in numbers:
        tried = case(number)
        if wrong := outcome(tried, folder, capsys):
            words = [word if len(word) < 100 else f"{word[:100]}…" for word in tried.arguments]
            found.append(f"case {number}: {words}: {wrong}")
    return found


def test_random_input_is_accepted_or_refused_with_one_message(place: Path, capsys: Any) -> None:
    assert failures(range(FEW), place, capsys) == []


@pytest.mark.long
@pytest.mark.study
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("piece", range(PIECES))
def test_much_random_input_is_accepted_or_refused_with_one_message(piece: int, place: Path, capsys: Any) -> None:
    first = FEW + piece * PIECE
    assert failures(range(first, first + PIECE), place, capsys) == []
