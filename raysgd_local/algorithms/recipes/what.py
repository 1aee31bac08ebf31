"""Recipes that differ in what travels, and in which data a worker has."""

from __future__ import annotations

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.compression import Sign, TopK
from raysgd_local.algorithms.placement import RedundantChunks
from raysgd_local.algorithms.recipes.base import Recipe
from raysgd_local.algorithms.schedules import FixedPeriod

WHAT = (
    Recipe(
        name="topk-local-sgd",
        summary="Send the hundredth of each round's step that is largest; the rest goes with later rounds.",
        citation="Stich, Cordonnier, Jaggi. Sparsified SGD with Memory. NeurIPS 2018; Basu, Data, Karakus, Diggavi. "
        "Qsparse-local-SGD. NeurIPS 2019",
        formula="c_i = p_i(anchor − x_i) + e_i; send top_k(c_i); e_i ← c_i − top_k(c_i); "
        "anchor ← anchor − Σ_i top_k(c_i)",
        traps="What is remembered is old when it arrives: small ratios need small learning rates at first.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=8), compression=TopK(ratio=0.01)),
    ),
    Recipe(
        name="ef-sign-local-sgd",
        summary="Send one bit an element of each round's step; the error goes with the next round.",
        citation="Karimireddy, Rebjock, Stich, Jaggi. Error Feedback Fixes SignSGD and other Gradient Compression "
        "Schemes. ICML 2019",
        formula="c_i = p_i(anchor − x_i) + e_i; send ‖c_i‖₁/n·sign(c_i) by tensor; e_i ← c_i − what was sent",
        traps="All elements of a tensor move by the same length: tensors with few large elements follow slowly.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=8), compression=Sign()),
    ),
    Recipe(
        name="ri-sgd",
        summary="Every chunk of data on two workers: batches are more diverse, and a death loses nothing.",
        citation="Haddadpour, Kamani, Mahdavi, Cadambe. Trading Redundancy for Communication: Speeding up "
        "Distributed SGD for Non-convex Optimization. ICML 2019",
        formula="local SGD with r = 2 copies of each chunk",
        traps="Here each sample is still trained on once an epoch; in the paper the batch grows with the copies.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=16), placement=RedundantChunks(copies=2)),
    ),
)
