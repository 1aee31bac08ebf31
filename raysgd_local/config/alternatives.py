"""The settings whose value is one of several classes, and the names of these classes in configurations."""

from __future__ import annotations

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import AVERAGINGS, Averaging
from raysgd_local.algorithms.compression import COMPRESSIONS, Compression
from raysgd_local.algorithms.outer import OUTERS, Outer
from raysgd_local.algorithms.placement import PLACEMENTS, ChunkPlacement
from raysgd_local.algorithms.recipes import RECIPES, Recipe
from raysgd_local.algorithms.schedules import SCHEDULES, TRIGGERS, Schedule, Trigger
from raysgd_local.algorithms.weights import WEIGHTS, Weights
from raysgd_local.config.build import Alternative, Builder, table
from raysgd_local.errors import InputError, nearest
from raysgd_local.simulation.cluster.step_times import STEP_TIMES, StepTimes
from raysgd_local.tasks import Task, find_task, task_name

_SCHEDULE = table(SCHEDULES)

BUILDER = Builder(
    {
        Task: Alternative("name", find_task, task_name),
        Schedule: _SCHEDULE,
        Trigger: table(TRIGGERS),
        Averaging: table(AVERAGINGS),
        Outer: table(OUTERS),
        Compression: table(COMPRESSIONS),
        ChunkPlacement: table(PLACEMENTS),
        Weights: table(WEIGHTS),
        StepTimes: table(STEP_TIMES),
    }
)


def find_recipe(name: str) -> Recipe:
    """Return the recipe called `name`. Raises `InputError` (field `method`) if there is none."""
    if name not in list(RECIPES):  # a name from a file may be anything
        raise InputError("method", name, f"one of {', '.join(RECIPES)}", nearest(name, RECIPES))
    return RECIPES[name]


def method_name(algorithm: Algorithm) -> str:
    """Return a name for this algorithm: of the recipe that it equals, or else its schedule's kind.

    >>> method_name(find_recipe("k-avg").algorithm), method_name(Algorithm())
    ('k-avg', 'adacomm')
    """
    same = (recipe.name for recipe in RECIPES.values() if recipe.algorithm == algorithm)
    return next(same, _SCHEDULE.name_of(algorithm.schedule).rpartition(":")[2])
