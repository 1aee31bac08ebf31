"""Recipes whose weights, compression or data placement is special."""

from __future__ import annotations

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import Mean
from raysgd_local.algorithms.compression import Sign, TopK
from raysgd_local.algorithms.placement import RedundantChunks
from raysgd_local.algorithms.recipes.base import Recipe
from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.algorithms.weights import FedNova

WHAT = (
    Recipe(
        name="fedavg",
        summary="Federated averaging: each round half of the workers, drawn anew, train and are averaged by samples.",
        citation="McMahan, Moore, Ramage, Hampson, Agüera y Arcas. Communication-Efficient Learning of Deep Networks "
        "from Decentralized Data. AISTATS 2017",
        formula="S = ⌈C·m⌉ workers; x_i ← x_i − η g_i, τ times, for i in S; x ← Σ_{i in S} n_i x_i / Σ_{i in S} n_i",
        traps="Workers that are not drawn wait. The paper's data is unequal by nature: see the placement label-skewed.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=16), averaging=Mean(fraction=0.5)),
    ),
    Recipe(
        name="fednova",
        summary="Workers may take unequal numbers of steps: each step counts by how far it goes.",
        citation="Wang, Liu, Liang, Joshi, Poor. Tackling the Objective Inconsistency Problem in Heterogeneous "
        "Federated Optimization. NeurIPS 2020",
        formula="x ← anchor − τ_eff·Σ_i p_i (anchor − x_i)/‖a_i‖₁, τ_eff = Σ_i p_i ‖a_i‖₁; ‖a‖₁ = τ for plain SGD",
        traps="For SGD only, without clipping; momentum begins anew each round, so it is weak where τ is small.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=16), weights=FedNova(), optimizer_state="reset"),
    ),
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
