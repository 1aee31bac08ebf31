"""What a training loop may and may not ask of its context."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

import raysgd_local
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.schedules import AtEpoch, EveryStep, FixedPeriod, Switch
from raysgd_local.control.controller.settings import CheckpointPolicy, Settings
from raysgd_local.control.member.events import LeaveAsked
from raysgd_local.control.replicated.program import Program
from raysgd_local.errors import InputError, UsageError
from raysgd_local.training.context import TrainContext
from raysgd_local.training.shell import Shell
from raysgd_local.training.standalone import DirectLink, alone
from raysgd_local.training.worker_setup import WorkerSetup
from raysgd_local.transport.in_process import InProcessNetwork

DATA = TensorDataset(torch.randn(20, 3))


@pytest.fixture
def ctx():
    return alone()


def prepared(ctx):
    model = ctx.prepare_model(nn.Linear(3, 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    return model


def test_everything_is_prepared_before_the_first_epoch(ctx):
    model = prepared(ctx)
    for _ in ctx.epochs(1):
        for prepare in (
            lambda: ctx.prepare_model(model),
            lambda: ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=1)),
            lambda: ctx.prepare_scheduler(lambda epochs: 1.0),
            lambda: ctx.register("x", model),
        ):
            with pytest.raises(UsageError, match="before the first ctx.epochs"):
                prepare()


def test_an_epoch_needs_a_model_and_an_optimizer(ctx):
    with pytest.raises(UsageError, match="prepare_model and ctx.prepare_optimizer"):
        next(iter(ctx.epochs(1)))


@pytest.mark.parametrize("name", ["rank", "view", "world_size", "stopping", "probing"])
def test_a_place_in_the_run_is_known_from_the_first_epoch_on(ctx, name):
    prepared(ctx)
    with pytest.raises(UsageError, match=rf"ctx\.{name} is known from the first epoch on.*ctx\.epochs"):
        getattr(ctx, name)
    for _ in ctx.epochs(1):
        getattr(ctx, name)


def test_steps_evaluations_and_logs_come_after_the_first_epoch_has_begun(ctx):
    prepared(ctx)
    for early in (lambda: ctx.step(1.0), lambda: ctx.evaluate(lambda m, b: 0.0, DATA), lambda: ctx.log(x=1)):
        with pytest.raises(UsageError, match="first epoch"):
            early()


def test_any_value_in_any_field_is_logged(ctx, capsys):
    prepared(ctx)
    for _ in ctx.epochs(1):
        ctx.log(self=1, event="epoch_end", loss=torch.tensor(0.5))
    assert capsys.readouterr().out == "worker=w0 round=0 self=1 loss=0.5 log_event=epoch_end\n"


def test_batches_come_once_an_epoch_and_not_before_one(ctx):
    prepared(ctx)
    with pytest.raises(UsageError, match="loop over ctx.epochs"):
        ctx.batches(DATA, batch_size=4)
    for _ in ctx.epochs(1):
        ctx.batches(DATA, batch_size=4)
        with pytest.raises(UsageError, match="once an epoch"):
            ctx.batches(DATA, batch_size=4)


def test_batches_of_an_epoch_that_was_left_give_nothing_more(ctx):
    prepared(ctx)
    for _ in ctx.epochs(1):
        batches = ctx.batches(DATA, batch_size=4)
        next(batches)
        ctx.evaluate(lambda model, batch: model(batch[0]).mean(), DATA)
        with pytest.raises(UsageError, match="left"):
            next(batches)


def test_a_step_says_how_many_samples_it_is_over(ctx):
    model = prepared(ctx)
    for _ in ctx.epochs(1):
        loss = model(torch.randn(2, 3)).mean()
        loss.backward()
        with pytest.raises(UsageError, match="samples="):
            ctx.step(loss)
        ctx.step(loss, samples=2)


@pytest.mark.parametrize(
    ("option", "value"), [("shuffle", False), ("sampler", [1]), ("drop_last", True), ("batch_sampler", [[1]])]
)
def test_which_samples_come_when_is_not_the_users_to_say(ctx, option, value):
    prepared(ctx)
    for _ in ctx.epochs(1):
        with pytest.raises(InputError, match=f"^{option}: .*(dealt|every sample)"):
            ctx.batches(DATA, batch_size=4, **{option: value})


def test_options_that_say_how_samples_are_dealt_anyway_are_taken(ctx):
    prepared(ctx)
    for _ in ctx.epochs(1):
        options = {"shuffle": True, "drop_last": False, "sampler": None, "generator": None}
        assert sum(len(batch[0]) for batch in ctx.batches(DATA, batch_size=4, **options)) == len(DATA)


def test_an_iterable_data_set_is_refused_with_the_reason(ctx):
    class Endless(IterableDataset):
        def __iter__(self):
            return iter(())

    prepared(ctx)
    for _ in ctx.epochs(1):
        with pytest.raises(InputError, match="can't be dealt"):
            ctx.batches(Endless(), batch_size=4)


def test_registered_state_that_would_need_unpickling_is_refused(ctx):
    class Odd:
        def state_dict(self):
            return {"object": DATA}

        def load_state_dict(self, state):
            raise NotImplementedError

    prepared(ctx)
    ctx.register("odd", Odd())
    with pytest.raises(InputError, match="odd"):
        next(iter(ctx.epochs(1)))


def test_stop_ends_batches_and_epochs(ctx):
    model = prepared(ctx)
    steps = 0
    for _ in ctx.epochs(5):
        for (x,) in ctx.batches(DATA, batch_size=4):
            loss = model(x).mean()
            loss.backward()
            ctx.stop()
            ctx.step(loss)
            steps += 1
    assert ctx.stopping
    assert steps == 1


def in_rounds_of(tau):
    settings = Settings(
        Program(FixedPeriod(tau)), workers_min=1, workers_max=1, checkpoints=CheckpointPolicy(last=False)
    )
    return TrainContext(Shell(WorkerSetup("w0", 0), InProcessNetwork(), DirectLink(settings)))


def test_the_member_hears_of_a_round_s_steps_when_they_are_over():
    ctx = in_rounds_of(6)
    model = prepared(ctx)
    told = []
    for _ in ctx.epochs(1):
        for (x,) in ctx.batches(DATA, batch_size=2):  # ten batches
            loss = model(x).mean()
            loss.backward()
            ctx.step(loss)
            told.append((ctx._shell.member.steps, ctx._shell.state.samples))
    assert told == [(1, 0)] * 5 + [(0, 12)] + [(1, 12)] * 4
    assert (ctx._shell.state.steps, ctx._shell.state.samples) == (10, 20)


def test_a_probe_begins_without_the_gradients_and_the_loss_of_a_step_that_is_dropped(ctx):
    model = prepared(ctx)
    for _ in ctx.epochs(1):
        model(DATA.tensors[0]).mean().backward()
        ctx._shell.loss.add(1.0, samples=20)
        ctx._shell.probing.mark(local=True)
        assert model.weight.grad is None
        assert ctx._shell.loss.value() == 0


def test_the_newest_round_is_shown_when_the_controller_was_told_of_it():
    ctx = in_rounds_of(5)
    model = prepared(ctx)
    for epoch in ctx.epochs(2):
        batches = ctx.batches(DATA, batch_size=4)
        if epoch:
            assert ctx._shell.member.rounds == ()
            assert ctx._shell.status().loss > 0
        for (x,) in batches:
            loss = model(x).square().mean()
            loss.backward()
            ctx.step(loss)


def test_a_word_from_outside_is_heard_at_the_next_step_of_a_round():
    ctx = in_rounds_of(8)
    model = prepared(ctx)
    heard = []
    for _ in ctx.epochs(1):
        for step, (x,) in enumerate(ctx.batches(DATA, batch_size=4)):  # five batches
            loss = model(x).mean()
            loss.backward()
            if step == 2:
                ctx._shell.post(LeaveAsked())
            ctx.step(loss)
            heard.append((ctx._shell.member.leaving, ctx._shell.member.steps))
    assert heard == [(False, 1), (False, 1), (True, 3), (True, 3), (True, 3)]


def test_a_second_step_on_each_batch_skips_no_epoch_and_is_taken_as_by_plain_pytorch(ctx):
    models = [ctx.prepare_model(nn.Linear(3, 1)) for _ in range(2)]
    plain = copy.deepcopy(models)
    for model in models:
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    steps = [torch.optim.SGD(model.parameters(), lr=0.1) for model in plain]
    epochs = []
    for epoch in ctx.epochs(3):
        epochs.append(epoch)
        for (x,) in ctx.batches(DATA, batch_size=4):
            for number in range(2):
                for own in (models, plain):
                    loss = own[number](x).square().mean()
                    loss.backward()
                steps[number].step()
                steps[number].zero_grad()
                ctx.step(loss) if number == 0 else ctx.step(loss, samples=0)
    assert epochs == [0, 1, 2]
    for model, other in zip(models, plain, strict=True):
        torch.testing.assert_close(model.weight, other.weight)


def test_an_epoch_whose_body_does_nothing_is_counted(ctx):
    prepared(ctx)
    assert list(ctx.epochs(3)) == [0, 1, 2]


def test_augmentation_of_a_sample_depends_on_seed_epoch_and_index_alone(ctx):
    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, index):
            return index, torch.rand(())

    def drawn(batch_size, workers):
        ctx = alone(seed=5)
        model = prepared(ctx)
        found = {}
        for epoch in ctx.epochs(2):
            for indices, noise in ctx.batches(Noisy(), batch_size=batch_size, num_workers=workers):
                found |= {(epoch, int(i)): float(n) for i, n in zip(indices, noise, strict=True)}
                loss = model(torch.randn(1, 3)).mean()
                loss.backward()
                ctx.step(loss)
        return found

    one = drawn(batch_size=4, workers=0)
    assert len(one) == len(set(one.values())) == 24
    assert drawn(batch_size=3, workers=2) == one


def test_get_context_without_a_run_is_one_worker():
    ctx = raysgd_local.get_context()
    assert ctx is raysgd_local.get_context()


def test_layers_unfrozen_with_a_group_of_their_own_while_training_are_refused_in_words(ctx):
    model = ctx.prepare_model(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)))
    model[0].requires_grad_(False)
    optimizer = ctx.prepare_optimizer(torch.optim.AdamW(model[1].parameters(), lr=0.01))

    def loop():
        for epoch in ctx.epochs(2):
            if epoch == 1:
                model[0].requires_grad_(True)
                optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.001})
            for (x,) in ctx.batches(DATA, batch_size=4):
                loss = model(x).square().mean()
                loss.backward()
                ctx.step(loss)

    with pytest.raises(UsageError, match="parameter groups changed after the first ctx.epochs"):
        loop()


def test_layers_unfrozen_while_training_are_refused_by_name(ctx):
    model = ctx.prepare_model(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)))
    model[0].requires_grad_(False)
    ctx.prepare_optimizer(torch.optim.AdamW(model.parameters(), lr=0.01))

    def loop():
        for epoch in ctx.epochs(2):
            model[0].requires_grad_(epoch == 1)
            for (x,) in ctx.batches(DATA, batch_size=4):
                loss = model(x).square().mean()
                loss.backward()
                ctx.step(loss)

    with pytest.raises(UsageError, match="0.weight was frozen when training began, and trains now"):
        loop()


def test_parameters_of_the_loss_train_beside_the_model(ctx):
    model, scale = ctx.prepare_model(nn.Linear(3, 1)), nn.Parameter(torch.zeros(1))
    ctx.prepare_optimizer(torch.optim.SGD([*model.parameters(), scale], lr=0.05))
    for _ in ctx.epochs(1):
        for (x,) in ctx.batches(DATA, batch_size=4):
            loss = (model(x).square().mean() * torch.exp(-scale) + scale).sum()
            loss.backward()
            ctx.step(loss.detach())
    assert scale.item() != 0


@pytest.mark.parametrize("schedule", [EveryStep(), Switch(FixedPeriod(2), EveryStep(), AtEpoch(1))])
def test_an_optimizer_that_takes_sparse_gradients_only_is_refused_before_the_first_step_if_gradients_are_averaged(
    schedule,
):
    for allowed in (schedule, FixedPeriod(2)):
        settings = Settings(Program(allowed), 1, 1, checkpoints=CheckpointPolicy(last=False))
        setup = WorkerSetup("w0", 0, algorithm=Algorithm(allowed))
        ctx = TrainContext(Shell(setup, InProcessNetwork(), DirectLink(settings)))
        model = ctx.prepare_model(nn.Embedding(8, 4, sparse=True))
        ctx.prepare_optimizer(torch.optim.SparseAdam(model.parameters(), lr=0.1))
        if allowed is schedule:
            with pytest.raises(InputError, match="^optimizer: 'SparseAdam' is not allowed.*dense gradients"):
                next(iter(ctx.epochs(1)))
            continue
        for _ in ctx.epochs(1):
            loss = model(torch.tensor([1, 2])).square().mean()
            loss.backward()
            ctx.step(loss, samples=2)
