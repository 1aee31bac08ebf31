"""Run random scenarios from seeds, and print those that break an invariant, with as few faults as possible."""

from __future__ import annotations

import argparse
import multiprocessing
import time
import traceback
from collections import Counter
from dataclasses import dataclass

from raysgd_local.control import marks
from raysgd_local.faults.language import Fault, as_drawn, parse, written
from raysgd_local.simulation.engine.scenario import Scenario
from raysgd_local.simulation.engine.violation import Violated
from raysgd_local.simulation.search.random_scenario import random_scenario
from raysgd_local.simulation.search.trial import TrialResult, run_trial


@dataclass(frozen=True)
class FailedSeed:
    """A seed whose scenario breaks an invariant."""

    seed: int
    what: str  # the violation
    faults: tuple[Fault, ...]  # as few as still break it

    def __str__(self) -> str:
        chaos = written(self.faults)
        return (
            f'seed {self.seed}: {self.what}\n  raysgd-local search --first {self.seed} --seeds 1 --chaos "{chaos}"'
        )


def attempt(scenario: Scenario) -> TrialResult | str:
    """Return the run's end, or the text of a failure: a broken invariant, or an exception in the code under test."""
    try:
        return run_trial(scenario)
    except Violated as error:
        return str(error)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{frame.name}, line {frame.lineno} of {frame.filename.rpartition(chr(47))[2]}"
        return f"{type(error).__name__} in {place}: {error}"


def check(seed: int, faults: int = 8) -> FailedSeed | TrialResult:
    """Try one seed."""
    scenario = random_scenario(seed, faults)
    outcome = attempt(scenario)
    return shortened(scenario, outcome) if isinstance(outcome, str) else outcome


def shortened(scenario: Scenario, what: str) -> FailedSeed:
    """Leave out faults one by one, as long as the scenario still fails."""
    faults = scenario.faults
    index = 0
    while index < len(faults):
        fewer = (*faults[:index], *faults[index + 1 :])
        outcome = attempt(scenario.with_faults(fewer))
        if isinstance(outcome, str):
            faults, what = fewer, outcome
        else:
            index += 1
    return FailedSeed(scenario.seed, what, faults)


@dataclass(frozen=True)
class _Summary:
    """The outcome of one seed, to be sent between processes."""

    status: str  # how the run ended, or "violated"
    text: str  # the violation, or the reason of the end
    reached: frozenset[str]  # marks


def _summary(seed: int) -> _Summary:
    with marks.recording() as reached:
        outcome = check(seed)
    if isinstance(outcome, FailedSeed):
        return _Summary("violated", str(outcome), frozenset(reached))
    return _Summary(outcome.finish.status, outcome.finish.reason, frozenset(reached))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="raysgd-local search", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--most", type=int, default=20, help="stop after as many failures")
    parser.add_argument("--chaos", help="these faults instead of the first seed's own")
    parser.add_argument("--marks", action="store_true", help="print how many seeds reached each mark")
    options = parser.parse_args(arguments)
    if options.chaos is not None:
        return retry(options.first, options.chaos)
    return search(range(options.first, options.first + options.seeds), options.jobs, options.most, options.marks)


def search(seeds: range, jobs: int = 1, most: int = 20, show_marks: bool = False) -> int:
    """Try `seeds` in `jobs` processes, until `most` have failed; print the outcomes, and return the exit status."""
    began, ends, reached = time.monotonic(), Counter[str](), Counter[str]()
    with multiprocessing.Pool(jobs) as pool:
        for summary in pool.imap(_summary, seeds, chunksize=8):
            ends[summary.status] += 1
            reached.update(summary.reached)
            if summary.status == "violated":
                print(summary.text, flush=True)
            if ends["violated"] >= most:
                break
    print(f"{ends.total()} seeds in {time.monotonic() - began:.0f} s: {dict(ends)}")
    print(told(reached, show_marks))
    return 1 if ends["violated"] else 0


def told(reached: Counter[str], counts: bool) -> str:
    """Format the marks that no seed reached; with `counts`, first the number of seeds that reached each mark."""
    lines = [f"{reached[name]:>7}  {name}: {says}" for name, says in marks.MARKS.items()] if counts else []
    missing = marks.never_reached(reached)
    return "\n".join([*lines, f"marks never reached: {', '.join(missing) or 'none'}"])


def replay(seed: int, chaos: str, methods: bool = True) -> TrialResult | str:
    """Run the scenario of a seed with these faults, which count as drawn: `target` always hits someone."""
    return attempt(random_scenario(seed, methods=methods).with_faults(as_drawn(parse(chaos))))


def retry(seed: int, chaos: str) -> int:
    """Try one seed with these faults instead of its own; return the exit status."""
    outcome = replay(seed, chaos)
    print(
        outcome if isinstance(outcome, str) else f"{outcome.finish}, {outcome.now:.1f} s, {outcome.events} events"
    )
    return isinstance(outcome, str)
