"""Recipes whose averaging or outer step is special."""

from __future__ import annotations

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import Elastic, Gossip
from raysgd_local.algorithms.outer import BlockMomentum, MaxChange, OuterOptimizer, SlowMo
from raysgd_local.algorithms.recipes.base import Recipe
from raysgd_local.algorithms.schedules import FixedPeriod

HOW = (
    Recipe(
        name="easgd",
        summary="Workers stay apart, held together by springs to a centre, which is the model.",
        citation="Zhang, Choromanska, LeCun. Deep Learning with Elastic Averaging SGD. NeurIPS 2015",
        formula="x_i ← x_i − α(x_i − z), z ← z + α·m·Σ_j p_j (x_j − z), α = β/m",
        traps="The centre lags behind the workers; it is their mean only when they have come to rest.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=10), averaging=Elastic(beta=0.9)),
    ),
    Recipe(
        name="eamsgd",
        summary="EASGD for workers with Nesterov momentum, which they keep.",
        citation="Zhang, Choromanska, LeCun. Deep Learning with Elastic Averaging SGD. NeurIPS 2015",
        formula="easgd; and in the task's optimizer momentum 0.99 with nesterov true",
        traps="It is easgd unless the task's optimizer has Nesterov momentum. With 0.99 the rate has to be small.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=10), averaging=Elastic(beta=0.9), optimizer_state="keep"),
    ),
    Recipe(
        name="d-psgd",
        summary="Workers average with their two neighbours on a ring, after every step; nobody knows the mean.",
        citation="Lian, Zhang, Zhang, Hsieh, Zhang, Liu. Can Decentralized Algorithms Outperform Centralized "
        "Algorithms? A Case Study for Decentralized Parallel Stochastic Gradient Descent. NeurIPS 2017",
        formula="x_i ← Σ_j W_ij x_j, W_ij = ⅓ for i and its neighbours; the model is the mean",
        traps="Agreement takes about m² rounds on a ring: with many workers take exponential. In "
        "the paper averaging and gradient start from the same point; here the step comes first, then the averaging.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=1), averaging=Gossip("ring")),
    ),
    Recipe(
        name="gossip-sgd",
        summary="Each round workers average in pairs that are drawn anew.",
        citation="Jin, Yuan, Iandola, Keutzer. How to Scale Distributed Deep Learning? 2016; Jiang, Balu, Hegde, "
        "Sarkar. Collaborative Deep Learning in Fixed Topology Networks. NeurIPS 2017",
        formula="x_i, x_j ← (x_i + x_j)/2 for each pair; the model is the mean",
        traps="With an odd number of workers one idles. The workers' distance, not the mean, is what pairs wear down.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=4), averaging=Gossip("pairs")),
    ),
    Recipe(
        name="bmuf",
        summary="Momentum over the rounds' mean steps, which makes up for the small steps that averages take.",
        citation="Chen, Huo. Scalable Training of Deep Learning Machines by Incremental Block Training with "
        "Intra-block Parallel Optimization and Blockwise Model-Update Filtering. ICASSP 2016",
        formula="v ← b·v + (anchor − x̄), anchor ← anchor − ζ·v, b = 1 − 1/m",
        traps="With ζ = 1 steps grow m times: linear scaling of the learning rate on top is refused.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=16), outer=BlockMomentum()),
    ),
    Recipe(
        name="slowmo",
        summary="Slow momentum over the rounds, in the units of the local learning rate.",
        citation="Wang, Tantia, Ballas, Rabbat. SlowMo: Improving Communication-Efficient Distributed SGD with Slow "
        "Momentum. ICLR 2020",
        formula="u ← β·u + (anchor − x̄)/γ, anchor ← anchor − α·γ·u, γ the local rate at the round's first step",
        traps="The best β grows with the number of workers: 0.2 for 4, 0.6 for 16 in the paper.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=12), outer=SlowMo(beta=0.2)),
    ),
    Recipe(
        name="diloco",
        summary="Hundreds of local steps a round, and Nesterov momentum on the mean step: for slow links.",
        citation="Douillard et al. DiLoCo: Distributed Low-Communication Training of Language Models. 2023",
        formula="τ = 500 steps of AdamW (the task's optimizer), then SGD(0.7, Nesterov 0.9) on anchor − x̄",
        traps="A constant step is amplified 7 times in the limit; the local optimizer is the task's: say adamw.",
        algorithm=Algorithm(
            schedule=FixedPeriod(tau=500), outer=OuterOptimizer("SGD", 0.7, {"momentum": 0.9, "nesterov": True})
        ),
    ),
    Recipe(
        name="fedavgm",
        summary="Federated averaging with momentum on the mean step.",
        citation="Hsu, Qi, Brown. Measuring the Effects of Non-Identical Data Distribution for Federated Visual "
        "Classification. 2019",
        formula="v ← 0.9·v + (anchor − x̄), anchor ← anchor − v",
        traps="A constant step is amplified 10 times in the limit: lower the local rate, or outer.lr.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=16), outer=OuterOptimizer("SGD", 1.0, {"momentum": 0.9})),
    ),
    Recipe(
        name="fedadam",
        summary="Adam on the mean step.",
        citation="Reddi et al. Adaptive Federated Optimization. ICLR 2021",
        formula="Adam(lr 0.01, β 0.9 and 0.99, ε 1e-3) with gradient anchor − x̄",
        traps="outer.lr is the size of a round's step in each parameter and needs a search; torch corrects the "
        "moments' bias, the paper does not.",
        algorithm=Algorithm(
            schedule=FixedPeriod(tau=16), outer=OuterOptimizer("Adam", 0.01, {"betas": [0.9, 0.99], "eps": 1e-3})
        ),
    ),
    Recipe(
        name="povey-max-change",
        summary="The mean step of a round has a largest length, so that no round can undo the training.",
        citation="Povey, Zhang, Khudanpur. Parallel Training of DNNs with Natural Gradient and Parameter Averaging. "
        "ICLR 2015 workshop",
        formula="g = anchor − x̄; anchor ← anchor − g·min(1, c/‖g‖)",
        traps="c is a length over all parameters and depends on the model; no default is published for a round.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=16), outer=MaxChange(limit=2.0)),
    ),
)
