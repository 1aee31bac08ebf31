"""Quantisation-aware training: torch's observers get the shape of their buffers with the data."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local.algorithms.schedules import EveryStep, FixedPeriod

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning"),
]
DATA = TensorDataset(torch.randn(40, 1, 8, 8), torch.randint(2, (40,)))


def observed():
    """A model with observers of every channel, whose buffers are empty at first."""
    inner = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    inner.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    return quantization.prepare_qat(nn.Sequential(quantization.QuantStub(), inner, quantization.DeQuantStub()))


@pytest.mark.parametrize("schedule", [FixedPeriod(2), EveryStep()], ids=str)
def test_a_joiner_and_the_model_at_the_end_have_what_the_observers_saw(
    train_in_threads, killed, schedule, tmp_path
):
    initial, begins = observed(), []

    def loop():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(copy.deepcopy(initial))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
        for epoch in ctx.epochs(3):
            for number, (x, y) in enumerate(ctx.batches(DATA, batch_size=4)):
                if (ctx.view.number, ctx.rank, epoch, number) == (1, 1, 1, 1):
                    raise killed
                if epoch:
                    begins.append(model[1][0].weight_fake_quant.activation_post_process.min_val.shape)
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                ctx.step(loss)

    done = train_in_threads(loop, workers=2, schedule=schedule)
    assert done.result["status"] == "finished", done.outcome.finish
    assert done.result["workers_lost"] == 1
    assert set(begins) == {(4,)}  # the joiner's too, before its first step
    saved, model = torch.load(tmp_path / "run" / "model.pt", weights_only=True), copy.deepcopy(initial)
    assert saved["1.0.weight_fake_quant.scale"].shape == (4,)
    model.load_state_dict(saved)
    assert bool(model.eval()(DATA[:4][0]).isfinite().all())
