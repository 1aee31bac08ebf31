"""Parameters of two bytes travel at two bytes, and are added in float32."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import Blocks, Elastic, Gossip
from raysgd_local.algorithms.outer import SlowMo
from raysgd_local.algorithms.schedules import FixedPeriod, Hierarchical
from raysgd_local.control.control_slots import Contribution, Control
from raysgd_local.control.replicated.extent import Extent
from raysgd_local.errors import InputError
from raysgd_local.state.replica_state import ReplicaState
from raysgd_local.training.exchange.factory import make_reduction
from raysgd_local.training.exchange.own_type import OwnType
from raysgd_local.training.exchange.plain import Installing, Reduction
from raysgd_local.transport.in_process import InProcessNetwork

PLAIN = Algorithm(FixedPeriod(1))
NARROW = [torch.bfloat16, torch.float16]
WEIGHTS = (3.0, 1.0, 4.0)  # sums are powers of two, so that shares are exact


def models(count: int, dtype: torch.dtype, norm: torch.dtype | None = None) -> list[nn.Sequential]:
    """Models of 100,000 parameters that differ; the layer in the middle may have another type."""
    torch.manual_seed(0)
    made = [nn.Sequential(nn.Linear(250, 200), nn.LayerNorm(200), nn.Linear(200, 249)) for _ in range(count)]
    for model in made:
        model.to(dtype)[1].to(norm or dtype)
    return made


def equal_models(count: int, dtype: torch.dtype) -> list[nn.Sequential]:
    made = models(count, dtype)
    for model in made:
        model.load_state_dict(made[0].state_dict())
    return made


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


@dataclass
class Ended:
    reduction: Reduction
    controls: list[Control]
    sent: int  # bytes


def average(
    members: list[nn.Sequential],
    algorithm: Algorithm = PLAIN,
    extent: Extent | None = None,
    mode: str = "parameters",
    rounds: int = 1,
    drift: float = 0.0,
) -> list[Ended]:
    """Let all members average; before each round, each moves by `drift` times its number."""
    network = InProcessNetwork()

    def member(rank: int) -> Ended:
        reduction = make_reduction(ReplicaState(members[rank]), network.allocate, len(members), algorithm)
        reduction.seat(len(members))
        transport = network.connect(1, rank, len(members))
        controls = []
        for round in range(1, rounds + 1):
            with torch.no_grad():
                for parameter in members[rank].parameters():
                    parameter.add_(drift * (rank + 1))
            said = Contribution(weight=WEIGHTS[rank], samples=1, lr=0.1)
            asked = None if extent is None else lambda _: extent
            kind = "parameters" if extent is None else "partial"
            controls.append(reduction.reduce(transport, mode if mode == "gradients" else kind, round, said, asked))
            reduction.commit(Installing(mode, mode, lambda _: None), controls[-1])
        return Ended(reduction, controls, transport.wire_bytes())

    with ThreadPoolExecutor(len(members)) as pool:
        return list(pool.map(member, range(len(members))))


def weighted(vectors: list[Tensor], weights: tuple[float, ...] = WEIGHTS) -> Tensor:
    return sum(w * v for w, v in zip(weights, vectors, strict=False)) / sum(weights[: len(vectors)])


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("count", [2, 3])
def test_the_mean_is_that_of_float32_rounded_once_at_half_of_the_bytes(dtype: torch.dtype, count: int) -> None:
    members = models(count, dtype)
    expected = weighted([flat(model) for model in members])
    wide = average(models(count, torch.float32), PLAIN)
    ended = average(members)
    for model, end, other in zip(members, ended, wide, strict=True):
        assert torch.equal(flat(model), expected.float().to(dtype).double())
        assert 0.50 <= end.sent / other.sent <= 0.52


def test_layers_of_another_type_in_the_middle_keep_theirs() -> None:
    members = models(3, torch.bfloat16, norm=torch.float32)
    expected = weighted([flat(model) for model in members])
    average(members)
    norm = slice(250 * 200 + 200, 250 * 200 + 600)
    for model in members:
        assert torch.allclose(flat(model)[norm], expected[norm], rtol=1e-6)
        assert torch.allclose(flat(model), expected, rtol=2**-8)
        assert torch.equal(flat(model), flat(members[0]))


def test_exchange_float32_sends_four_bytes() -> None:
    members = models(2, torch.bfloat16)
    expected = weighted([flat(model) for model in members])
    (end, _) = average(members, Algorithm(FixedPeriod(1), exchange="float32"))
    (wide, _) = average(models(2, torch.float32))
    assert end.sent == wide.sent
    assert torch.equal(flat(members[0]), expected.float().bfloat16().double())
    with pytest.raises(InputError, match="exchange"):
        Algorithm(exchange="bf16")


@pytest.mark.parametrize("dtype", NARROW)
def test_a_member_whose_state_is_not_finite_does_not_count(dtype: torch.dtype) -> None:
    members = models(3, dtype)
    with torch.no_grad():
        members[1][2].bias[3] = float("nan")
    expected = weighted([flat(members[0]), flat(members[2])], (WEIGHTS[0], WEIGHTS[2]))
    average(members)
    assert all(
        torch.allclose(flat(model), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-7) for model in members
    )
    assert all(torch.equal(flat(model), flat(members[0])) for model in members)


def test_averaged_gradients_travel_in_their_type_too() -> None:
    members = models(3, torch.bfloat16)
    for rank, model in enumerate(members):
        for index, parameter in enumerate(model.parameters()):
            parameter.grad = None if index == 1 else torch.randn_like(parameter) * (rank + 1)
    rows = [[p.grad.double() for p in model.parameters() if p.grad is not None] for model in members]
    ended = average(members, mode="gradients")
    wide = average(models(3, torch.float32))
    for model, end, other in zip(members, ended, wide, strict=True):
        got = [p.grad for p in model.parameters() if p.grad is not None]
        for gradient, *parts in zip(got, *rows, strict=True):
            assert torch.equal(gradient.double(), weighted(parts).float().bfloat16().double())
        assert end.sent / other.sent <= 0.52


@pytest.mark.parametrize(
    "algorithm", [Algorithm(FixedPeriod(1), outer=SlowMo()), Algorithm(FixedPeriod(1), averaging=Elastic())]
)
def test_an_anchor_keeps_the_precision_of_float32(algorithm: Algorithm) -> None:
    members = equal_models(2, torch.bfloat16)
    exact = [copy.deepcopy(model) for model in members]
    wide = Algorithm(FixedPeriod(1), outer=algorithm.outer, averaging=algorithm.averaging, exchange="float32")
    ours = [end.reduction._anchor.flat for end in average(members, algorithm, rounds=3, drift=1 / 64)]
    theirs = average(exact, wide, rounds=3, drift=1 / 64)[0].reduction._anchor.flat
    assert torch.equal(ours[0], ours[1])
    assert float((ours[0] - theirs).abs().max()) <= 2**-8 * 3 / 64 * 3  # of the steps, not of the parameters


@pytest.mark.parametrize("whole", [False, True])
def test_blocks_average_in_the_parameters_type(whole: bool) -> None:
    members = equal_models(3, torch.bfloat16)
    begin, moves = flat(members[0]), [torch.tensor(rank / 4, dtype=torch.float64) for rank in (1, 2, 3)]
    algorithm = Algorithm(Hierarchical(FixedPeriod(1), FixedPeriod(2)), averaging=Blocks())
    extent = Extent(whole, tuple(w / sum(WEIGHTS) for w in WEIGHTS), (0, 0, 1))
    ended = average(members, algorithm, extent, drift=1 / 4)
    expected = [weighted(moves)] * 3 if whole else [weighted(moves[:2])] * 2 + [moves[2]]
    for model, move, end in zip(members, expected, ended, strict=True):
        assert torch.allclose(flat(model), begin + move, rtol=2**-7, atol=2**-8)
        assert end.sent <= 0.52 * 2 * 4 * len(begin)


def test_gossip_sends_two_bytes_and_keeps_the_mean() -> None:
    members = models(3, torch.bfloat16)
    vectors = [flat(model) for model in members]
    ended = average(members, Algorithm(FixedPeriod(1), averaging=Gossip()), Extent(False, (1 / 3,) * 3, (0, 1, 2)))
    for end in ended:
        assert end.sent <= 2 * 2 * len(vectors[0]) * 1.02
    assert not torch.equal(flat(members[0]), vectors[0])


@pytest.mark.parametrize(
    "types", [(torch.bfloat16,), (torch.float32, torch.float16), (torch.float16, torch.float32)]
)
def test_a_message_holds_every_parameter_in_its_type(types: tuple[torch.dtype, ...]) -> None:
    parameters = [torch.randn(5).to(dtype) for dtype in types]
    own = OwnType(parameters, torch.float32)
    vector = torch.cat([parameter.float() for parameter in parameters])
    message = own.encode(vector)
    assert message.numel() == sum(5 * dtype.itemsize for dtype in types)
    assert torch.equal(own.decode(message, vector), vector)


def test_a_vector_shorter_than_the_shards_is_averaged() -> None:
    members = [nn.Linear(5, 1, bias=False).bfloat16() for _ in range(4)]
    for model in members:
        model.load_state_dict(members[0].state_dict())
    begin = flat(members[0])
    average(members[:3], Algorithm(FixedPeriod(1), outer=SlowMo()), drift=1 / 4)
    assert all(
        torch.allclose(
            flat(model), begin + weighted([torch.tensor(r / 4) for r in (1, 2, 3)]), rtol=2**-7, atol=2**-8
        )
        for model in members[:3]
    )
