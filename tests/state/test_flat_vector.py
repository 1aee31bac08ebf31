"""Flat vectors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raysgd_local.state.flat_vector import FlatLayout, checksum, pack, unpack
from raysgd_local.state.packing import PackedBlocks, Packing

SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=4).map(tuple), max_size=6)


@given(SHAPES, st.sampled_from([1.0, 3.0, 0.25]), st.booleans())
def test_what_was_packed_comes_back(shapes: list[tuple[int, ...]], weight: float, permuted: bool) -> None:
    tensors = [torch.randn(shape) for shape in shapes]
    if permuted:
        tensors = [t.permute(tuple(reversed(range(t.dim())))) for t in tensors]
    layout = FlatLayout.like(tensors)
    flat = torch.full((layout.numel,), float("nan"))
    pack(layout.views(flat), tensors, weight)
    back = [torch.empty_like(t) for t in tensors]
    unpack(layout.views(flat), back, weight)
    for a, b in zip(tensors, back, strict=True):
        torch.testing.assert_close(a, b)


def test_gaps_and_overlaps_are_packed_contiguously() -> None:
    tensors = [torch.randn(4, 6)[:, ::2], torch.randn(1, 3).expand(5, 3)]
    layout = FlatLayout.like(tensors)
    assert layout.numel == 12 + 15
    flat = torch.empty(layout.numel)
    pack(layout.views(flat), tensors, 1.0)
    assert torch.equal(flat, torch.cat([t.flatten() for t in tensors]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("position", [0, 1, 7776, 199_999])
def test_a_single_bad_element_is_found_anywhere(bad: float, position: int, dtype: torch.dtype) -> None:
    tensor = torch.zeros(200_000, dtype=dtype)  # more than a block
    assert packing(tensor).complete()
    tensor[position] = bad
    assert not packing(tensor).complete()


def test_elements_whose_sum_over_members_might_overflow_count_as_not_finite() -> None:
    assert not packing(torch.tensor([1e30])).complete()


def packing(tensor: torch.Tensor) -> Packing:
    blocks, flat = PackedBlocks(FlatLayout.like([tensor])), torch.empty_like(tensor)
    return Packing(flat, blocks.ends, blocks.writer(flat, [tensor], 1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.bfloat16])
@pytest.mark.parametrize("numel", [0, 1, 7, 1001])
def test_a_checksum_depends_on_every_element_and_on_the_length(dtype: torch.dtype, numel: int) -> None:
    flat = torch.ones(numel, dtype=dtype)
    seen = {checksum(flat), checksum(torch.ones(numel + 1, dtype=dtype))}
    for position in range(0, numel, 97):
        changed = flat.clone()
        changed[position] = 3
        seen.add(checksum(changed))
    assert len(seen) >= 2 + (numel > 0)
    assert all(0 <= value < 2**48 for value in seen)


def test_of_a_large_vector_a_change_everywhere_is_always_seen_and_one_bit_within_some_rounds() -> None:
    flat = torch.randn(600_001)
    assert checksum(flat) == checksum(flat.clone())
    assert checksum(flat) != checksum(flat * (1 + 1e-6))
    seen = 0
    for position in range(1_000, 600_000, 6_007):
        changed = flat.clone()
        changed[position] = torch.nextafter(flat[position], torch.tensor(9.0))
        seen += checksum(changed) != checksum(flat)
    assert seen >= 4


def test_a_checksum_does_not_depend_on_where_the_vector_lies() -> None:
    whole = torch.randn(1001)
    assert checksum(whole[1:]) == checksum(whole[1:].clone())
