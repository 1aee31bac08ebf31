"""A sweep's progress on standard error: a line for each event, and a summary every few seconds."""

from __future__ import annotations

import math
from typing import Any

from ray import tune

from raysgd_local.clock import SystemClock
from raysgd_local.console import say
from raysgd_local.tuning.objective import Objective
from raysgd_local.tuning.trial import FINISHED

_EVERY_S = 10.0


class SweepProgress(tune.Callback):
    """A Tune callback that prints progress. `trials`: the total number of trials."""

    def __init__(self, objective: Objective, trials: int) -> None:
        self._objective, self._trials = objective, trials
        self._best, self._best_trial = objective.worst, ""
        self._told_s = -math.inf

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._say(f"{trial} starts: " + ", ".join(f"{key}={_short(value)}" for key, value in trial.config.items()))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = trial.last_result or {}
        if not result.get(FINISHED):
            self._say(f"{trial} stopped early: {self._standing(result)}")
            return
        figure = result.get(self._objective.metric, math.nan)
        if self._objective.better(figure, self._best):
            self._best, self._best_trial = figure, str(trial)
        self._say(f"{trial} finished: {self._objective.metric} {_short(figure)}; {self._best_so_far()}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._say(f"{trial} failed; its error is in {trial.error_file}")

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now = SystemClock().now()
        if now < self._told_s + _EVERY_S:
            return
        self._told_s = now
        ended = sum(trial.is_finished() for trial in trials)
        running = [trial for trial in trials if trial.status == "RUNNING"]
        standings = " | ".join(f"{trial}: {self._standing(trial.last_result or {})}" for trial in running[:4])
        self._say(f"{ended} of {self._trials} ended | {standings or 'starting'} | {self._best_so_far()}")

    def _standing(self, result: dict[str, Any]) -> str:
        metric = self._objective.progress[0]
        if "elapsed_s" not in result:
            return "starting"
        return f"{result['elapsed_s']:.1f} s, {metric} {_short(result.get(metric, math.nan))}"

    def _best_so_far(self) -> str:
        if not self._best_trial:
            return f"no {self._objective.metric} yet"
        return f"best {_short(self._best)} ({self._best_trial})"

    def _say(self, line: str) -> None:
        say(line)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
