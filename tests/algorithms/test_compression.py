"""Compression: what a message holds, what is remembered, and that nothing is lost for good."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raysgd_local.algorithms.compression import COMPRESSIONS, Half, Int8, RandomK, Sign, TopK
from raysgd_local.errors import InputError
from raysgd_local.state.compressed_messages import Messages, Residual, best_way

KINDS = [Half(), Half(block=3), Int8(), Int8(block=3), TopK(0.2), RandomK(0.2), Sign()]
SIZES = [4, 1, 12, 3]


def vectors(rows: int = 1, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return scale * torch.randn(rows, sum(SIZES), generator=torch.Generator().manual_seed(7), dtype=dtype)


def carried(compression, vector: torch.Tensor, seed: int = 3, sizes=SIZES) -> torch.Tensor:
    """What arrives of a vector, through bytes."""
    sender, receiver = (Messages(compression, sizes, vector) for _ in range(2))
    content = sender.encode(vector, seed)
    assert content.dtype == torch.uint8
    assert len(content) == sender.nbytes
    return receiver.decode(content, seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-30])
@pytest.mark.parametrize(("kind", "error"), [(Half(), 2**-11), (Int8(), 0.5 / 127)])
def test_a_fine_message_is_close_to_its_vector_element_by_element_at_any_scale(kind, error, scale, dtype):
    (vector,) = vectors(scale=scale, dtype=dtype)
    arrived = carried(kind, vector)
    assert arrived.dtype == dtype
    assert float((arrived - vector).abs().max()) <= 1.001 * error * float(vector.abs().max())


@pytest.mark.parametrize(("kind", "nbytes"), [(Half(), 2 * 1500 + 2 * 4), (Int8(), 1500 + 6 * 4)])
def test_what_a_last_block_lacks_is_not_sent(kind, nbytes):
    vector = torch.randn(1500, generator=torch.Generator().manual_seed(7))
    assert Messages(kind, [1500], vector).nbytes == nbytes
    assert len(carried(kind, vector, sizes=[1500])) == 1500


def test_top_k_carries_the_largest_exactly_and_nothing_else():
    (vector,) = vectors()
    arrived = carried(TopK(0.2), vector)
    largest = vector.abs().argsort(descending=True)[:4]
    assert torch.equal(arrived[largest], vector[largest])
    assert int((arrived != 0).sum()) == 4


def test_top_k_finds_its_elements_again_in_long_vectors():
    vector = torch.randn(200_001, generator=torch.Generator().manual_seed(7))
    arrived = carried(TopK(0.01), vector, sizes=[150_000, 50_001])
    largest = vector.abs().argsort(descending=True)[:2000]
    assert torch.equal(arrived[largest], vector[largest])
    assert int((arrived != 0).sum()) == 2000
    assert Messages(TopK(0.01), [200_001], vector).nbytes == 2000 * 6 + 4 * 4


def test_random_k_carries_other_elements_with_every_seed_and_is_right_in_the_mean_without_memory():
    (vector,) = vectors(dtype=torch.float64)
    arrived = torch.stack([carried(RandomK(0.2, memory=False), vector, seed) for seed in range(4000)])
    torch.testing.assert_close(arrived.mean(0), vector, rtol=0, atol=0.12)
    with_memory = carried(RandomK(0.2), vector)
    sent = with_memory != 0
    assert torch.equal(with_memory[sent], vector[sent])


def test_a_sign_message_has_each_tensor_s_mean_magnitude_and_zero_counts_as_positive():
    vector = torch.tensor([1.0, -3.0, 0.0, 5.0, -2.0])
    assert carried(Sign(), vector, sizes=[2, 3]).tolist() == pytest.approx([2.0, -2.0, 7 / 3, 7 / 3, -7 / 3])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_vector_of_zeros_arrives_as_zeros(kind):
    assert torch.equal(carried(kind, torch.zeros(sum(SIZES))), torch.zeros(sum(SIZES)))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_arrived_and_what_is_remembered_are_together_what_was_to_be_sent(kind):
    vector = vectors()[0]
    residual = Residual(len(vector), vector, memory=True)
    sent = carried(kind, vector)
    residual.keep(vector, sent)
    residual.commit()
    torch.testing.assert_close(sent + residual.before, vector, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", [Half(memory=False), Int8(memory=False), RandomK(memory=False)], ids=str)
def test_without_memory_nothing_is_remembered(kind):
    vector = vectors()[0]
    residual = Residual(len(vector), vector, kind.memory)
    residual.keep(vector, carried(kind, vector))
    residual.commit()
    again = vector.clone()
    residual.add_to(again)
    assert torch.equal(again, vector)


def test_a_round_that_broke_does_not_touch_what_is_remembered():
    vector = vectors()[0]
    residual = Residual(len(vector), vector, memory=True)
    residual.keep(vector, 0.5 * vector)
    assert not residual.before.any()


@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(st.lists(st.lists(st.floats(0.1, 5.0), min_size=1, max_size=4), min_size=1, max_size=6))
def test_the_anchor_and_all_that_is_remembered_follow_the_uncompressed_sum(kind, rounds):
    """For any weights, with members that join and leave: a leaver sends all that it has."""
    generator, numel = torch.Generator().manual_seed(1), sum(SIZES)
    sent_sum, true_sum = torch.zeros(2, numel, dtype=torch.float64)
    memories: list[Residual] = []
    for weights in rounds:
        while len(memories) > len(weights):
            sent_sum += memories.pop().before
        while len(memories) < len(weights):
            memories.append(Residual(numel, sent_sum, memory=True))
        for weight, memory in zip(weights, memories, strict=True):
            step = weight / sum(weights) * torch.randn(numel, generator=generator, dtype=torch.float64)
            true_sum += step
            memory.add_to(step)
            arrived = carried(kind, step)
            memory.keep(step, arrived)
            memory.commit()
            sent_sum += arrived
    torch.testing.assert_close(sent_sum + sum(m.before for m in memories), true_sum)


# F_i = ⟨a_i, x⟩² + ¼‖x‖² with a_i the shifts of (−3, 2, 2), from x = 1.
SHIFTS = torch.tensor([[-3.0, 2, 2], [2, -3, 2], [2, 2, -3]], dtype=torch.float64)


def gradients(x: torch.Tensor) -> torch.Tensor:
    """By member, (3, 3)."""
    return 2 * (SHIFTS @ x).unsqueeze(1) * SHIFTS + 0.5 * x


def test_top_1_without_memory_grows_by_the_known_factor():
    eta, x, top = 0.01, torch.ones(3, dtype=torch.float64), TopK(0.01)
    for _ in range(5):
        before = x.clone()
        x = x - eta * sum(carried(top, g, sizes=[3]) for g in gradients(x)) / 3
        torch.testing.assert_close(x, (1 + 11 * eta / 6) * before)


def test_top_1_with_memory_goes_to_the_minimum():
    eta, x, top = 0.01, torch.ones(3, dtype=torch.float64), TopK(0.01)
    memories = [Residual(3, x, memory=True) for _ in range(3)]
    for _ in range(4000):
        step = torch.zeros_like(x)
        for memory, gradient in zip(memories, gradients(x), strict=True):
            c = eta * gradient / 3
            memory.add_to(c)
            sent = carried(top, c, sizes=[3])
            memory.keep(c, sent)
            memory.commit()
            step += sent
        x = x - step
    assert float(x.norm()) < 1e-3


@pytest.mark.parametrize(
    ("kind", "share"),
    [(Half(), 0.502), (Int8(), 0.254), (TopK(0.01), 0.0151), (RandomK(0.01), 0.0101), (Sign(), 0.0314)],
)
def test_a_message_s_length_in_shares_of_the_vector_s(kind, share):
    numel = 1 << 20
    messages = Messages(kind, [numel], torch.zeros(1))
    assert messages.nbytes / (4 * numel) == pytest.approx(share, rel=0.01)


@pytest.mark.parametrize(("message_share", "beats_the_ring_below"), [(0.5, 4), (0.25, 8), (1 / 32, 64)])
def test_gathering_whole_messages_pays_up_to_a_number_of_members(message_share, beats_the_ring_below):
    numel = 1 << 20
    message = int(4 * numel * message_share)
    assert best_way(numel, 4, message, beats_the_ring_below - 1, summable=False) == "gather"
    assert best_way(numel, 4, message, beats_the_ring_below, summable=False) == "whole"
    assert best_way(numel, 4, message, beats_the_ring_below, summable=True) == "shards"


def test_configurations_can_name_every_compression():
    assert set(COMPRESSIONS.values()) == {Half, Int8, TopK, RandomK, Sign}


@pytest.mark.parametrize(
    ("kind", "options", "field"),
    [
        (Half, {"block": 0}, "block"),
        (Int8, {"block": 0}, "block"),
        (TopK, {"ratio": 0.0}, "ratio"),
        (TopK, {"ratio": math.nan}, "ratio"),
        (TopK, {"memory": False}, "memory"),
        (RandomK, {"ratio": 1.5}, "ratio"),
        (Sign, {"memory": False}, "memory"),
    ],
)
def test_options_out_of_range_are_refused_by_name(kind, options, field):
    with pytest.raises(InputError) as caught:
        kind(**options)
    assert (caught.value.field, caught.value.exit_status) == (field, 2)
