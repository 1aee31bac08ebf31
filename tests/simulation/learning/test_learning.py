"""Runs that really learn, in virtual time: they are the runs that real workers would do."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from ray.train import RunConfig, ScalingConfig
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset, IterableDataset

import raysgd_local
from raysgd_local import (
    Algorithm,
    Blocks,
    Delayed,
    Dynamic,
    EveryStep,
    FedNova,
    FixedPeriod,
    Gossip,
    Hierarchical,
    LocalSGDTrainer,
    Mean,
)
from raysgd_local.control.controller.settings import CheckpointPolicy
from raysgd_local.errors import InputError, UserCodeError
from raysgd_local.faults.language import parse
from raysgd_local.run.simulator import Conditions
from raysgd_local.run_files import journal
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.simulation.cluster.step_times import Constant, Exponential
from raysgd_local.tasks import Digits

SAME = ["round", "tau", "steps", "samples", "epoch", "lr"]


class Noisy(Dataset):
    """Samples that are augmented at random."""

    def __init__(self, samples):
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(samples, 6, generator=generator)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index] + 0.1 * torch.randn(6), int(self.x[index].sum() > 0)


def loop(config):
    """Everything that draws random numbers: initial weights, dropout, augmentation; and BatchNorm."""
    ctx = raysgd_local.get_context()
    model = ctx.prepare_model(
        nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))
    )
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    for _ in ctx.epochs(3):
        for x, y in ctx.batches(Noisy(101), batch_size=7):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            ctx.step(loss)
        ctx.evaluate(lambda model, batch: {"loss": F.cross_entropy(model(batch[0]), batch[1])}, Noisy(20))


def straight_loop(config):
    """Nothing in it minds a batch of one, which a death in a small epoch may leave."""
    ctx = raysgd_local.get_context()
    model = ctx.prepare_model(nn.Linear(6, 2))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    for _ in ctx.epochs(3):
        for x, y in ctx.batches(Noisy(101), batch_size=3):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            ctx.step(loss)
        ctx.evaluate(lambda model, batch: {"loss": F.cross_entropy(model(batch[0]), batch[1])}, Noisy(20))


def trainer(place, name, method, workers, what=loop):
    algorithm = method if isinstance(method, Algorithm) else Algorithm(method)
    given = {"task": what} if not callable(what) else {"train_loop_per_worker": what}
    return LocalSGDTrainer(
        **given,
        algorithm=algorithm,
        scaling_config=ScalingConfig(num_workers=workers),
        run_config=RunConfig(name=name, storage_path=str(place)),
        seed=5,
    )


def models(*results):
    return [torch.load(Path(result.path) / "model.pt") for result in results]


def rounds(result):
    return pd.read_csv(Path(result.path) / "rounds.csv")


def events(result, kind):
    lines = (Path(result.path) / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


@pytest.mark.ray
@pytest.mark.parametrize(
    "schedule",
    [
        FixedPeriod(3),
        *(pytest.param(s, marks=pytest.mark.long) for s in (EveryStep(), Delayed(FixedPeriod(3), 1))),
    ],
    ids=["tau3", "every-step", "delayed"],
)
def test_two_simulated_workers_end_with_the_bits_of_two_real_ones(tmp_path, schedule):
    real = trainer(tmp_path, "real", schedule, 2).fit()
    simulated = trainer(tmp_path, "simulated", schedule, 2).simulate()
    first, second = models(real, simulated)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert rounds(real)[SAME].equals(rounds(simulated)[SAME])
    assert rounds(real)["loss"].equals(rounds(simulated)["loss"])


@pytest.mark.parametrize("chaos", ["", "kill:1@round=5", "kill:0@round=4; nan:1@round=7"])
def test_an_averaging_travels_in_virtual_time_while_the_loop_goes_on(tmp_path, chaos):
    cluster = ClusterModel(steps=Constant(0.1), latency_ms=0, bandwidth_mbps=0.02, startup_s=0.1)
    elapsed_s = []
    for name, schedule in {"delayed": Delayed(FixedPeriod(5), 3), "plain": FixedPeriod(5)}.items():
        run = trainer(tmp_path, name, schedule, 3, straight_loop)
        result = run.simulate(Conditions(cluster, parse(chaos)))
        assert json.loads((Path(result.path) / "result.json").read_text())["samples_lost"] == 0
        elapsed_s.append(rounds(result)["elapsed_s"].iloc[-1])
    assert elapsed_s[0] < (1.0 if chaos else 0.85) * elapsed_s[1]


@pytest.mark.ray
@pytest.mark.long
def test_four_simulated_workers_end_where_four_real_ones_do(tmp_path):
    task = Digits(epochs=3)
    real = trainer(tmp_path, "real", FixedPeriod(4), 4, task).fit()
    simulated = trainer(tmp_path, "simulated", FixedPeriod(4), 4, task).simulate()
    first, second = models(real, simulated)
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-5
    assert rounds(real)[SAME].equals(rounds(simulated)[SAME])


def test_the_same_seed_gives_the_same_files(tmp_path):
    conditions = Conditions(ClusterModel(Exponential(0.01)), parse("kill:1@round=6; nan:0@round=9"), seed=3)
    runs = [trainer(tmp_path, name, FixedPeriod(3), 3).simulate(conditions) for name in ("a", "b")]
    for name in ("rounds.csv", "evals.csv", "events.jsonl", "journal.jsonl", "result.json"):
        first, second = ((Path(run.path) / name).read_bytes() for run in runs)
        assert first == second, name
    first, second = models(*runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "chaos",
    [
        "kill:1@round=6",
        "kill:0@round=4; kill:1@round=4",
        "stop:2x300@round=5",
        "drain:1x20@round=5",
        "sigterm:0@round=5",
        "nan:2@round=5",
        "cut:1@round=5",
        "driver@round=11",
        "kill:0@round=12; kill:0@round=12; kill:0@round=12",
        "kill:0@round=12; kill:1@round=12; kill:2@round=12",
    ],
)
def test_whatever_goes_wrong_every_sample_is_learnt_from_once_an_epoch(tmp_path, chaos):
    result = trainer(tmp_path, "run", FixedPeriod(1), 3).simulate(Conditions(faults=parse(chaos)))
    assert result.metrics["status"] == "finished"
    assert (result.metrics["samples_lost"], result.metrics["samples_repeated"]) == (0, 0)
    assert result.metrics["samples"] == 3 * 101
    assert sorted(event["fault"] for event in events(result, "chaos_fired")) == sorted(chaos.split("; "))
    assert_the_journal_gives_the_same_again(result)


def assert_the_journal_gives_the_same_again(result):
    steps = list(journal.replay(journal.read(result.path)))
    assert sum(bool(step.commands) for step in steps) > 10
    assert [step for step in steps if not step.same] == []


@pytest.mark.parametrize(
    "method",
    [
        Algorithm(FixedPeriod(1), Gossip("ring")),
        Algorithm(Hierarchical(FixedPeriod(1), FixedPeriod(3)), Blocks(count=2)),
        Algorithm(Dynamic(1, 0.05, 4)),
        Algorithm(FixedPeriod(1), Mean(fraction=0.5)),
        Algorithm(FixedPeriod(1), weights=FedNova(), optimizer_state="reset"),
    ],
    ids=["gossip", "hierarchical", "dynamic", "fedavg", "fednova"],
)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_so_it_is_where_not_all_average_with_all(tmp_path, method, seed):
    """Kills, one every few rounds: among them some in the midst of a round, which some members have committed."""
    chaos = "kill:0@round=3; kill:2@round=5; cut:1@round=8; kill:3@round=11; sigterm:2@round=12"
    chaos += "" if method.averaging.fraction < 1 else "; nan:1@round=4"  # where it may be all who trained
    run = trainer(tmp_path, "run", method, 4, straight_loop)
    result = run.simulate(Conditions(faults=parse(chaos), seed=seed))
    assert result.metrics["status"] == "finished"
    assert (result.metrics["samples_lost"], result.metrics["samples_repeated"]) == (0, 0)
    assert result.metrics["samples"] == 3 * 101
    assert result.metrics["loss"] < 1.5


def test_an_error_in_user_code_is_told_with_its_ranks(tmp_path):
    with pytest.raises(UserCodeError, match="an error of --chaos") as caught:
        trainer(tmp_path, "run", FixedPeriod(3), 3).simulate(Conditions(faults=parse("error:1@round=2")))
    assert caught.value.ranks == (1,)


def test_virtual_time_is_the_clusters(tmp_path):
    slow = ClusterModel(Constant(1.0), latency_ms=250)
    table = rounds(trainer(tmp_path, "run", FixedPeriod(2), 2).simulate(Conditions(slow)))
    full = table[table["steps"] == 4]
    assert full["compute_s"].iloc[1:].to_numpy() == pytest.approx(2.0)
    assert full["sync_s"].median() == pytest.approx(0.5, abs=0.01)


def test_a_driver_that_dies_before_any_checkpoint_begins_anew_with_empty_tables(tmp_path):
    never = trainer(tmp_path, "run", FixedPeriod(1), 3)
    never._request = replace(
        never._request,
        settings=replace(never._request.settings, checkpoints=CheckpointPolicy(every_epochs=None)),
    )
    result = never.simulate(Conditions(faults=parse("driver@round=9")))
    assert len(events(result, "driver_restarted")) == 1
    assert rounds(result)["round"].tolist() == list(range(1, len(rounds(result)) + 1))
    assert set(rounds(result)["incarnation"]) == {2}
    assert result.metrics["samples"] == 3 * 101
    assert_the_journal_gives_the_same_again(result)


def test_a_fault_that_did_not_happen_is_told(tmp_path):
    faults = parse("kill:0@round=2; kill:0@round=999; kill:0@round=999; slow:7@round=2; kill:j5@0.1s")
    result = trainer(tmp_path, "run", FixedPeriod(1), 3).simulate(Conditions(faults=faults))
    unfired = [event["fault"] for event in events(result, "chaos_unfired")]
    assert unfired == ["kill:0@round=999"] * 2 + ["slow:7x2@round=2", "kill:j5@0.1s"]


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.zeros(6), 0


def endless(config):
    """A data set that can't be dealt."""
    ctx = raysgd_local.get_context()
    model = ctx.prepare_model(nn.Linear(6, 2))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    for _ in ctx.epochs(1):
        for _ in ctx.batches(Endless(), batch_size=7):
            pass


def test_input_that_only_a_worker_can_refuse_ends_it_and_leaves_no_directory(tmp_path):
    with pytest.raises(InputError, match="map-style"):
        trainer(tmp_path, "run", FixedPeriod(1), 3, endless).simulate()
    assert not (tmp_path / "run").exists()
