"""Settings of Ray Train's classes: each has its effect, or is refused by its name."""

from __future__ import annotations

import dataclasses

import pytest
from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.errors import InputError
from raysgd_local.run.arguments import Arguments, from_arguments
from raysgd_local.run.ray_settings import HONOURED, INSTEAD
from raysgd_local.run.request import Request

CLASSES = {
    "scaling_config": ScalingConfig,
    "run_config": RunConfig,
    "run_config.checkpoint_config": CheckpointConfig,
    "run_config.failure_config": FailureConfig,
}
IGNORED = [
    ("scaling_config.placement_strategy", ScalingConfig(placement_strategy="STRICT_SPREAD")),
    ("scaling_config.label_selector", ScalingConfig(label_selector={"no-such": "label"})),
    ("scaling_config.use_tpu", ScalingConfig(use_tpu=True)),
    ("scaling_config.topology", ScalingConfig(topology="2x2")),
    ("scaling_config.elastic_resize_monitor_interval_s", ScalingConfig(elastic_resize_monitor_interval_s=5.0)),
    ("run_config.worker_runtime_env", RunConfig(worker_runtime_env={"env_vars": {"A": "1"}})),
    ("run_config.logging_config", RunConfig(logging_config=LoggingConfig(log_level="DEBUG"))),
    ("run_config.failure_config.controller_failure_limit", FailureConfig(controller_failure_limit=3)),
    ("run_config.failure_config.max_preemption_failures", FailureConfig(max_preemption_failures=3)),
    (
        "run_config.failure_config.relax_collectives_on_preemption",
        FailureConfig(relax_collectives_on_preemption=True),
    ),
    ("run_config.failure_config.preemption_grace_s", FailureConfig(preemption_grace_s=5.0)),
]


def loop() -> None: ...


def request_for(scaling: ScalingConfig | None = None, run: RunConfig | None = None) -> Request:
    scaling, run = scaling or ScalingConfig(), run or RunConfig()
    return from_arguments(Arguments(loop, None, Algorithm(), scaling, run))


def given(config: object) -> dict[str, object]:
    match config:
        case ScalingConfig():
            return {"scaling": config}
        case FailureConfig():
            return {"run": RunConfig(failure_config=config)}
    return {"run": config}


@pytest.mark.parametrize("argument", CLASSES)
def test_every_setting_of_the_installed_ray_is_honoured_or_refused_with_a_hint(argument):
    names = {field.name for field in dataclasses.fields(CLASSES[argument])}
    assert names <= HONOURED[argument] | set(INSTEAD)
    assert HONOURED[argument] <= names
    assert not HONOURED[argument] & set(INSTEAD)


@pytest.mark.parametrize(("field", "config"), IGNORED, ids=[field for field, _ in IGNORED])
def test_a_setting_without_effect_is_refused_by_its_name(field, config):
    with pytest.raises(InputError, match="has no effect") as refused:
        request_for(**given(config))
    assert refused.value.field == field
    assert refused.value.hint


def test_the_refused_settings_of_this_test_are_all_that_can_be_given():
    deprecated = {  # Ray itself raises for them
        *("trainer_resources", "sync_config", "verbose", "stop", "progress_reporter", "log_to_file"),
        *("checkpoint_frequency", "checkpoint_at_end", "fail_fast"),
    }
    assert {field.rpartition(".")[2] for field, _ in IGNORED} == set(INSTEAD) - deprecated


def test_a_setting_of_a_later_ray_is_refused_until_it_is_honoured():
    @dataclasses.dataclass
    class Later(ScalingConfig):
        warm_pool: int = 0

    request_for(Later())
    with pytest.raises(InputError, match=r"scaling_config\.warm_pool: 3 is not allowed"):
        request_for(Later(warm_pool=3))


def test_resources_and_the_accelerator_are_asked_for():
    asked = {"CPU": 2, "GPU": 0.5, "big_disk": 1}
    request = request_for(ScalingConfig(use_gpu=True, resources_per_worker=asked, accelerator_type="H100"))
    assert (request.cpus, request.use_gpu) == (2.0, True)
    assert request.resources == {"GPU": 0.5, "big_disk": 1.0, "accelerator_type:H100": 0.001}


@pytest.mark.parametrize(
    "asked", [{"memory": 1e9}, {"CPU": 0}, {"CPU": -1}, {"disk": float("nan")}, {"disk": "1"}]
)
def test_resources_that_no_worker_can_ask_for_are_refused_by_name(asked):
    (name,) = asked
    with pytest.raises(InputError) as refused:
        request_for(ScalingConfig(resources_per_worker=asked))
    assert refused.value.field == f"scaling_config.resources_per_worker.{name}"


def test_max_failures_below_minus_one_is_refused_by_its_name():
    with pytest.raises(InputError, match=r"run_config\.failure_config\.max_failures"):
        request_for(run=RunConfig(failure_config=FailureConfig(max_failures=-2)))
