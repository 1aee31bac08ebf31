"""Metrics of the averaged model: by name over all members, whichever of them has the samples."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from raysgd_local.errors import InputError, UsageError
from raysgd_local.training.evaluation import Evaluation
from raysgd_local.training.standalone import alone
from raysgd_local.transport.in_process import InProcessNetwork

KINDS = TensorDataset(torch.tensor([0.0] * 32 + [1.0] * 32)[:, None])  # the halves are two kinds of samples


def evaluated(metrics, dataset, members, batch_size=8, gather=None):
    """The result of each of `members` members."""
    network, model = InProcessNetwork(), nn.Linear(1, 1)

    def member(rank):
        evaluation = Evaluation(metrics, model, (), dataset, batch_size, torch.device("cpu"), gather)
        return evaluation.run(network.connect(1, rank, members))

    with ThreadPoolExecutor(members) as threads:
        return list(threads.map(member, range(members)))


def by_kind(model, batch):
    kind = int(batch[0][0])
    return {f"error_of_kind_{kind}": 10.0 if kind == 0 else 20.0} | ({} if kind else {"extra": 5.0})


@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_a_metric_that_some_members_don_t_have_is_the_mean_over_the_samples_that_have_it(members):
    expected = {"error_of_kind_0": 10.0, "error_of_kind_1": 20.0, "extra": 5.0}
    assert evaluated(by_kind, KINDS, members) == [pytest.approx(expected)] * members


def test_as_many_other_names_of_the_same_length_are_not_mistaken_for_each_other():
    def metrics(model, batch):
        return {"a": 1.0} if int(batch[0][0]) == 0 else {"b": 2.0}

    assert evaluated(metrics, KINDS, 2) == [{"a": 1.0, "b": 2.0}] * 2


def test_more_members_than_samples_give_the_mean_of_the_samples():
    data = TensorDataset(torch.tensor([[1.0], [4.0]]))
    assert evaluated(lambda model, batch: {"x": batch[0]}, data, 4) == [{"x": 2.5}] * 4


def test_members_without_any_metric_agree_on_none():
    assert evaluated(lambda model, batch: {}, KINDS, 2) == [{}, {}]


def test_a_name_may_be_any_text_that_can_be_written():
    name = 'F1, "macro" $x$ \\ <b>\r\nπ'
    assert evaluated(lambda model, batch: {name: 1.0, 7: 2.0}, KINDS, 2) == [{name: 1.0, "7": 2.0}] * 2


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_no_file_can_hold_is_refused(name):
    with pytest.raises(UsageError, match="a name that can be written"):
        evaluated(lambda model, batch: {name: 1.0}, KINDS, 1)


def prepared(ctx):
    model = ctx.prepare_model(nn.Linear(1, 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    return model


def test_each_of_two_evaluations_in_a_round_returns_its_own_metrics_and_the_run_knows_both():
    ctx = alone()
    model = prepared(ctx)
    for _ in ctx.epochs(2):
        for (x,) in ctx.batches(KINDS, batch_size=32):
            loss = model(x).square().mean()
            loss.backward()
            ctx.step(loss)
        first = ctx.evaluate(lambda model, batch: {"valid": 1.0, "both": 1.0}, KINDS)
        second = ctx.evaluate(lambda model, batch: {"test": 2.0, "both": 2.0}, KINDS)
        assert (first, second) == ({"valid": 1.0, "both": 1.0}, {"test": 2.0, "both": 2.0})
        assert dict(ctx._shell.state.metrics) == {"valid": 1.0, "both": 2.0, "test": 2.0}
    assert ctx._shell.state.evaluations == 4


def test_metrics_of_an_earlier_round_are_no_longer_those_of_the_model():
    ctx = alone()
    model = prepared(ctx)
    for epoch in ctx.epochs(2):
        for (x,) in ctx.batches(KINDS, batch_size=32):
            loss = model(x).square().mean()
            loss.backward()
            ctx.step(loss)
        ctx.evaluate(lambda model, batch, name=f"of_{epoch}": {name: 1.0}, KINDS)
    assert dict(ctx._shell.state.metrics) == {"of_1": 1.0}


def test_an_empty_test_set_is_bad_input():
    ctx = alone()
    prepared(ctx)
    for _ in ctx.epochs(1):
        with pytest.raises(InputError, match=r"^test set: .* 0 samples.*at least one sample"):
            ctx.evaluate(by_kind, TensorDataset(torch.empty(0, 1)))


def test_an_empty_training_set_is_bad_input():
    ctx = alone()
    prepared(ctx)
    for _ in ctx.epochs(1):
        with pytest.raises(InputError, match=r"^training set: .* 0 samples.*at least one sample"):
            ctx.batches(TensorDataset(torch.empty(0, 1)), batch_size=8)


LABELS = TensorDataset(torch.linspace(-1, 1, 50)[:, None], torch.tensor([0, 1, 1, 0, 1] * 10))


def scores(model, batch):
    return {"score": batch[0][:, 0], "label": batch[1]}


def auc(outputs):
    """The share of pairs of a positive and a negative sample in which the positive one has the higher score."""
    positive, negative = outputs["score"][outputs["label"] == 1], outputs["score"][outputs["label"] == 0]
    return {"auc": (positive[:, None] > negative).double().mean(), "samples": len(outputs["label"])}


@pytest.mark.parametrize("members", [1, 2, 3, 60])
def test_a_metric_that_is_no_mean_over_samples_sees_the_outputs_of_all(members):
    expected = {name: float(value) for name, value in auc(scores(None, LABELS[:])).items()}
    assert evaluated(scores, LABELS, members, gather=auc) == [expected] * members


def test_outputs_that_are_one_tensor_come_in_the_data_sets_order():
    def is_sorted(outputs):
        return bool((outputs.diff() > 0).all()) and len(outputs) == 50

    assert evaluated(lambda model, batch: batch[0][:, 0], LABELS, 3, gather=is_sorted) == [{"is_sorted": 1.0}] * 3


def test_outputs_by_name_stay_so_though_there_is_one_of_any_name():
    found = evaluated(
        lambda model, batch: {"outputs": batch[1]},
        LABELS,
        2,
        gather=lambda outputs: {"ones": outputs["outputs"].sum()},
    )
    assert found == [{"ones": 30.0}] * 2


def test_all_members_have_rank_0s_metrics_though_the_function_is_not_deterministic():
    found = evaluated(
        scores, LABELS, 3, gather=lambda outputs: {"x": torch.rand(()), "y": object.__hash__(outputs)}
    )
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("metrics", "gather", "says"),
    [
        (lambda model, batch: {"loss": torch.tensor(1.0)}, auc, "a row for each of the batch's 8 samples"),
        (lambda model, batch: batch[0][:1], auc, "a row for each of the batch's 8 samples"),
        (scores, lambda outputs: "good", "gather returns a number, or a dict of numbers"),
        (scores, lambda outputs: outputs["label"], "gather returns a number, or a dict of numbers"),
        (lambda model, batch: {f"x{int(batch[0][0] > 0)}": batch[1]}, auc, "outputs of the same names"),
        (lambda model, batch: torch.zeros(len(batch[1]), 1 + int(batch[0][0] > 0)), auc, "outputs of one shape"),
    ],
)
def test_outputs_that_can_t_be_gathered_are_refused(metrics, gather, says):
    with pytest.raises(UsageError, match=says):
        evaluated(metrics, LABELS, 2, gather=gather)
