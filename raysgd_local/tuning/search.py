"""A sweep as a `ray.tune.Tuner`: Tune's searchers, schedulers and loggers around our trials."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import SearchAlgorithm, Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.sample import Categorical, Float, Integer, LogUniform, Normal, Quantized

from raysgd_local.errors import InputError
from raysgd_local.tuning import domains
from raysgd_local.tuning.domains import Choice, Domain, Span, label
from raysgd_local.tuning.points import Point
from raysgd_local.tuning.sweep import Sweep
from raysgd_local.tuning.terminal import SweepProgress
from raysgd_local.tuning.trial import trainable

_GRACE = 0.2  # default of `scheduler.grace_s`, as a share of a trial's training time


def make_tuner(sweep: Sweep, directory: Path, points: Sequence[Point] | None = None) -> tune.Tuner:
    """Make the tuner of the sweep in this directory; if `points` are given, of these only."""
    points = sweep.points if points is None else points
    trials = sweep.budget.trials if points is None else len(points)
    return tune.Tuner(
        trainable(sweep, directory),
        param_space={key: to_tune(domain) for key, domain in sweep.space.items()},
        tune_config=tune.TuneConfig(
            search_alg=_searcher(sweep, points),
            scheduler=_scheduler(sweep),
            num_samples=trials,
            time_budget_s=sweep.budget.wall_s,
            max_concurrent_trials=sweep.budget.concurrent,
            reuse_actors=False,  # a trial's leftovers must end with its process
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name=directory.name,
            storage_path=str(directory.parent),
            callbacks=[SweepProgress(sweep.objective, trials)],
            verbose=0,
        ),
    )


def resumed(sweep: Sweep, directory: Path) -> tune.Tuner:
    """Make the tuner that continues in this directory with unfinished trials, and repeats failed ones."""
    return tune.Tuner.restore(str(directory), trainable=trainable(sweep, directory), resume_errored=True)


def can_resume(directory: Path) -> bool:
    return tune.Tuner.can_restore(str(directory))


def _name(trial: Any) -> str:
    return f"trial_{trial.trial_id}"


def _searcher(sweep: Sweep, points: Sequence[Point] | None) -> Searcher | SearchAlgorithm:
    if points is not None:
        labelled = [{key: label(value) for key, value in point.items()} for point in points]
        return BasicVariantGenerator(points_to_evaluate=labelled)
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # `terminal` says what there is to say
    objective = sweep.objective
    return OptunaSearch(metric=objective.metric, mode=objective.mode, seed=sweep.searcher.seed)


def _scheduler(sweep: Sweep) -> TrialScheduler | None:
    """Make Tune's scheduler, which compares trials by their progress after equal training time."""
    if sweep.budget_s is None or sweep.scheduler.kind == "none":
        return None
    metric, mode = sweep.objective.progress
    grace_s = sweep.scheduler.grace_s or _GRACE * sweep.budget_s
    if sweep.scheduler.kind == "median":
        return MedianStoppingRule("elapsed_s", metric, mode, grace_period=grace_s)
    asha: Any = ASHAScheduler  # its annotations want whole numbers, it does not
    ends_itself_s = 2 * sweep.budget_s  # a trial that is stopped at its budget would not tell its last figures
    factor = sweep.scheduler.reduction_factor
    found: TrialScheduler = asha(
        "elapsed_s", metric, mode, max_t=ends_itself_s, grace_period=grace_s, reduction_factor=factor
    )
    return found


def to_tune(domain: Domain) -> Any:
    """Convert a domain to Tune's."""
    if isinstance(domain, Choice):
        return tune.choice([label(value) for value in domain.values])
    ((term, arguments),) = domains.plain(domain).items()
    return getattr(tune, term)(*arguments)


def from_tune(given: Any, field: str) -> Domain:
    """Convert one of Tune's domains, or a mapping as in a sweep's file. Raises `InputError` of `field`."""
    if isinstance(given, Categorical):
        return Choice(tuple(given.categories))
    if not isinstance(given, Float | Integer):
        return domains.parse(given, field)
    domain: Any = given
    sampler: Any = domain.get_sampler()
    q = float(sampler.q) if isinstance(sampler, Quantized) else None
    inner = sampler.sampler if isinstance(sampler, Quantized) else sampler
    whole, log = isinstance(domain, Integer), isinstance(inner, LogUniform)
    if isinstance(inner, Normal) or (q is not None and (whole or log)):
        raise InputError(field, str(domain), domains.ALLOWED)
    return Span(domain.lower, domain.upper, whole=whole, log=log, q=q)
