"""Loops that step one optimizer after the other (a GAN), on several workers: with the real shells, in virtual time."""

from collections import defaultdict

import pytest
import torch
from ray.train import RunConfig, ScalingConfig
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local import Algorithm, EveryStep, FixedPeriod, LocalSGDTrainer, Switch
from raysgd_local.algorithms.compression import TopK
from raysgd_local.algorithms.schedules import AtEpoch
from raysgd_local.errors import RaySGDError, UserCodeError
from raysgd_local.faults.language import parse
from raysgd_local.run.simulator import Conditions

SEEN = defaultdict(list)  # by rank and epoch, the samples of its batches in their order
RATE, DECAY = 0.1, 0.9


def data(samples):
    return TensorDataset(torch.arange(float(samples)).double().view(-1, 1) / samples)


class Rivals:
    """A critic and a forger, which depend on each other, with an optimizer and a scheduler each."""

    def __init__(self):
        torch.manual_seed(0)
        self.critic, self.forger = nn.Linear(1, 2).double(), nn.Linear(2, 1).double()
        self.optimizers = [
            torch.optim.SGD(self.critic.parameters(), lr=RATE, momentum=0.9),
            torch.optim.Adam(self.forger.parameters(), lr=RATE),
        ]
        self.schedulers = [torch.optim.lr_scheduler.StepLR(o, 1, DECAY) for o in self.optimizers]

    def loss(self, number, x):
        forged = self.forger(torch.cat([x, x.square()], 1))
        if number == 0:
            return mse_loss(self.critic(x), x.expand(-1, 2)) + self.critic(forged.detach()).square().mean()
        return mse_loss(self.critic(forged), x.expand(-1, 2))

    def gradients(self, number, x):
        self.optimizers[number].zero_grad()
        loss = self.loss(number, x)
        loss.backward()
        return loss

    def step(self, number, x):
        self.gradients(number, x)
        self.optimizers[number].step()
        self.schedulers[number].step()

    def parameters(self):
        return [*self.critic.parameters(), *self.forger.parameters()]


def phases(how, rank, number):
    """The optimizers that this test's loop steps on its batch of this number."""
    if how == "one the other way round":
        return (1, 0) if rank == 1 else (0, 1)
    if how == "one only the first":
        return (0,) if rank == 1 else (0, 1)
    if how == "forger every third time":
        return (0, 1) if number % 3 == 2 else (0,)
    if how == "forger thrice":
        return (0, 1, 1, 1)
    return (0, 1)


def loop(config):
    ctx = raysgd_local.get_context()
    rivals = Rivals()
    for model in (rivals.critic, rivals.forger):
        ctx.prepare_model(model)
    for optimizer in rivals.optimizers:
        ctx.prepare_optimizer(optimizer)
    for scheduler in rivals.schedulers:
        ctx.prepare_scheduler(scheduler)
    for epoch in ctx.epochs(config.get("epochs", 2)):
        for number, (x,) in enumerate(ctx.batches(data(config["samples"]), batch_size=config["batch"])):
            SEEN[ctx.rank, epoch].append(x)
            for phase in phases(config["how"], ctx.rank, number):
                ctx.step(rivals.gradients(phase, x), optimizer=rivals.optimizers[phase])
                rivals.schedulers[phase].step()
        ctx.evaluate(lambda models, batch: models[0](batch[0]).square().mean(1), data(4))


def simulated(tmp_path, schedule, workers=2, faults="", compression=None, **config):
    SEEN.clear()
    trainer = LocalSGDTrainer(
        train_loop_per_worker=loop,
        train_loop_config={"how": "", "batch": 4, **config},
        algorithm=Algorithm(schedule, compression=compression),
        scaling_config=ScalingConfig(num_workers=workers),
        run_config=RunConfig(name="run", storage_path=str(tmp_path)),
    )
    return trainer.simulate(Conditions(faults=parse(faults)))


def trained(tmp_path):
    state = torch.load(tmp_path / "run" / "model.pt")
    return [value for number in "01" for value in state[number].values()]


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("how", ["", "forger thrice", "forger every third time"])
@pytest.mark.parametrize(
    ("samples", "batch"), [(24, 4), (30, 4), (25, 12)], ids=["even", "short batch", "a rank idle"]
)
def test_gradients_of_each_optimizer_are_averaged_as_in_one_large_batch(tmp_path, how, samples, batch):
    result = simulated(tmp_path, EveryStep(), how=how, samples=samples, batch=batch)
    rivals, steps = Rivals(), 0
    for epoch in range(2):
        ranks = [SEEN[0, epoch], SEEN[1, epoch]]
        for number in range(max(map(len, ranks))):
            x = torch.cat([batches[number] for batches in ranks if number < len(batches)])
            for phase in phases(how, 0, number):
                rivals.step(phase, x)
                steps += sum(number < len(batches) for batches in ranks)
    assert_close(trained(tmp_path), rivals.parameters())
    metrics = result.metrics
    assert (metrics["status"], metrics["samples"], metrics["steps"]) == ("finished", 2 * samples, steps)


@pytest.mark.parametrize("tau", [1, 3, 4, 100])
@pytest.mark.parametrize("samples", [24, 30])
def test_local_steps_of_each_optimizer_are_averaged_by_their_batches(tmp_path, tau, samples):
    result = simulated(tmp_path, FixedPeriod(tau), samples=samples)
    members = [Rivals(), Rivals()]
    for epoch in range(2):
        todo = [[(x, phase) for x in SEEN[rank, epoch] for phase in (0, 1)] for rank in range(2)]
        last = len(todo[0][-1][0])
        while any(todo):
            weights = []
            for member, steps in zip(members, todo, strict=True):
                size = tau if len(steps) - tau >= 2 else len(steps)  # the last batch's steps stay in one round
                for x, phase in steps[:size]:
                    member.step(phase, x)
                weights.append(sum(len(x) for x, _ in steps[:size]))
                del steps[:size]
            for own in zip(*(member.parameters() for member in members), strict=True):
                mean = sum(w * p.detach() for w, p in zip(weights, own, strict=True)) / sum(weights)
                for parameter in own:
                    parameter.data.copy_(mean)
        assert last
    assert_close(trained(tmp_path), members[0].parameters())
    assert (result.metrics["status"], result.metrics["samples"]) == ("finished", 2 * samples)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("one the other way round", "optimizer 0 on ranks 0, 2; optimizer 1 on rank 1"),
        ("one only the first", "optimizer 1 on ranks 0, 2; optimizer 0 on rank 1"),
    ],
)
def test_ranks_that_step_different_optimizers_together_are_told_by_rank(tmp_path, how, told):
    with pytest.raises(RaySGDError, match=told):
        simulated(tmp_path, EveryStep(), workers=3, how=how, samples=48)


CHAOS = [
    "kill:1@round=3",
    "kill:1@round=4",
    "kill:1@round=5; kill:0@round=8",
    "sigterm:0@round=3",
    "sigterm:0@round=4",
    "cut:1@round=3",
    "cut:1@round=4",
    "driver@round=7",
    "nan:2@round=4",
    "stop:2x300@round=3",
]


@pytest.mark.parametrize(
    ("schedule", "chaos"),
    [
        *((EveryStep(), chaos) for chaos in CHAOS),
        *((FixedPeriod(3), chaos) for chaos in CHAOS[::4]),
        *((Switch(FixedPeriod(3), EveryStep(), AtEpoch(1)), chaos) for chaos in CHAOS[::4]),
    ],
)
def test_workers_that_come_and_go_in_the_middle_of_a_batch_get_in_step(tmp_path, schedule, chaos):
    result = simulated(tmp_path, schedule, workers=3, faults=chaos, samples=61)
    assert result.metrics["status"] == "finished"
    assert (result.metrics["samples"], result.metrics["samples_lost"]) == (2 * 61, 0)


def test_compressed_gradients_are_refused_in_words(tmp_path):
    with pytest.raises(UserCodeError, match="can't be used with compressed gradients"):
        simulated(tmp_path, EveryStep(), compression=TopK(0.5), samples=24)
