"""Recipes whose schedule is special: they differ in when workers average."""

from __future__ import annotations

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import Blocks
from raysgd_local.algorithms.recipes.base import Recipe
from raysgd_local.algorithms.schedules import (
    QSR,
    AdaComm,
    AtFirstDecay,
    AtLoss,
    Delayed,
    Dynamic,
    EveryStep,
    FixedPeriod,
    Hierarchical,
    LupaLoss,
    Once,
    Stability,
    Switch,
)

WHEN = (
    Recipe(
        name="sync-sgd",
        summary="Average the gradients before every step: exactly large-batch SGD. The baseline.",
        citation="Dekel, Gilad-Bachrach, Shamir, Xiao. Optimal Distributed Online Prediction Using Mini-Batches. "
        "JMLR 2012",
        formula="x ← x − η·Σ_i p_i g_i, p_i worker i's share of the step's samples",
        traps="Every step waits for the slowest worker and for the network.",
        algorithm=Algorithm(schedule=EveryStep()),
    ),
    Recipe(
        name="local-sgd",
        summary="A fixed number of local steps, then average the parameters.",
        citation="Stich. Local SGD Converges Fast and Communicates Little. ICLR 2019",
        formula="x_i ← x_i − η g_i, τ times; then x_i ← Σ_j p_j x_j",
        traps="A long period and unequal data move the fixed point away from the minimum; search τ.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=16)),
    ),
    Recipe(
        name="k-avg",
        summary="K-step averaging: local SGD, with K chosen above 1 for convergence as well as for speed.",
        citation="Zhou, Cong. On the Convergence Properties of a K-step Averaging Stochastic Gradient Descent "
        "Algorithm for Nonconvex Optimization. IJCAI 2018",
        formula="local SGD with τ = K",
        traps="Quality dropped from K = 32 on in the paper's VGG runs on CIFAR-10; the best K is to be searched.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=8)),
    ),
    Recipe(
        name="pr-sgd",
        summary="Parallel restarted SGD: each round restarts every worker from the mean.",
        citation="Yu, Yang, Zhu. Parallel Restarted SGD with Faster Convergence and Less Communication: "
        "Demystifying Why Model Averaging Works for Deep Learning. AAAI 2019",
        formula="local SGD; momentum begins anew each round",
        traps="The analysed method is plain SGD, so nothing of a round but the mean outlives it.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=16), optimizer_state="reset"),
    ),
    Recipe(
        name="sparknet",
        summary="Long rounds for slow networks: average after 50 local steps.",
        citation="Moritz, Nishihara, Stoica, Jordan. SparkNet: Training Deep Networks in Spark. ICLR 2016",
        formula="local SGD with τ = 50",
        traps="With small training sets 50 steps are many epochs a round: workers overfit their own part.",
        algorithm=Algorithm(schedule=FixedPeriod(tau=50)),
    ),
    Recipe(
        name="adacomm",
        summary="Begin with a long period and shorten it as the loss falls.",
        citation="Wang, Joshi. Adaptive Communication Strategies to Achieve the Best Error-Runtime Trade-off in "
        "Local-Update SGD. MLSys 2019",
        formula="every T0 seconds: b = ⌈√((s_0/s)·(F/F_0))·τ_0⌉; τ ← b if b < τ or the learning rate decayed, "
        "else ⌊τ/2⌋; never below 1",
        traps="T0 (60 s in the paper) has to suit the run's length; search τ_0; the loss must be positive.",
        algorithm=Algorithm(schedule=AdaComm()),
    ),
    Recipe(
        name="post-local-sgd",
        summary="Synchronous until the learning rate first decays, local SGD from there on: generalises better.",
        citation="Lin, Stich, Patel, Jaggi. Don't Use Large Mini-Batches, Use Local SGD. ICLR 2020",
        formula="τ = 1 on gradients, then local SGD with τ = 16",
        traps="Without a learning-rate decay it never switches: name an epoch instead.",
        algorithm=Algorithm(schedule=Switch(EveryStep(), FixedPeriod(tau=16), when=AtFirstDecay())),
    ),
    Recipe(
        name="stability-switch",
        summary="Synchronous until trying shows that local steps do as well, local SGD from there on.",
        citation="This project's own test, for the switch of Lin, Stich, Patel, Jaggi. Don't Use Large Mini-Batches, "
        "Use Local SGD. ICLR 2020",
        formula="every 100 rounds, from one state and on the same samples: K = τ synchronous steps, and K local ones "
        "and their mean; switch to local SGD with τ = 16 when twice running L(local) ≤ L(sync) + max(2 % of L(sync), "
        "2 standard errors), on the 4 batches a worker that come after",
        traps="An epoch has to have at least K + 4 batches a worker, or nothing is ever tried. Trying costs K steps, "
        "and looking at 8 batches; the loop sees those batches more than once (ctx.probing). Comparing the mean's loss "
        "with the workers' own would pass at random weights already.",
        algorithm=Algorithm(schedule=Switch(EveryStep(), FixedPeriod(tau=16), when=Stability())),
    ),
    Recipe(
        name="lupa-sgd",
        summary="Lengthen the period as the loss falls: the opposite of AdaComm, by a theory of its own.",
        citation="Haddadpour, Kamani, Mahdavi, Cadambe. Local SGD with Periodic Averaging: Tighter Analysis and "
        "Adaptive Synchronization. NeurIPS 2019",
        formula="τ_i = ⌈(F_0/F_i)^⅓⌉·τ_0, capped; lupa-linear is the form with periods fixed in advance",
        traps="The period doubles after any decrease of the loss, however small: `smooth` follows the root itself.",
        algorithm=Algorithm(schedule=LupaLoss()),
    ),
    Recipe(
        name="delayed-averaging",
        summary="Go on for some steps while the averaging travels, and apply it to where they led.",
        citation="Zhu, Lu, Lin, Han. Distributed Training Across the World. NeurIPS workshop on systems for machine "
        "learning, 2019; with as many steps as the period it is CoCoD-SGD: Shen et al., IJCAI 2019",
        formula="after τ steps start averaging x_i^t; after d more x_i ← A + (x_i − x_i^t), A what came of it",
        traps="Worth its while only where an averaging takes long: d as long as that, and less than τ. Its result is d "
        "steps old, so with long delays, large rates or momentum it needs a smaller rate.",
        algorithm=Algorithm(schedule=Delayed(FixedPeriod(tau=16), delay=4)),
    ),
    Recipe(
        name="hierarchical-sgd",
        summary="Average often among the workers of a node, and now and then over all nodes.",
        citation="Lin, Stich, Patel, Jaggi. Don't Use Large Mini-Batches, Use Local SGD. ICLR 2020, section 5",
        formula="x_i ← mean of i's block after H steps; of all, weighted by samples, at every Hᵇ-th averaging",
        traps="A block is a node: on one machine say algorithm.averaging.count. What a block did since the last global "
        "averaging is lost with it if all its workers die.",
        algorithm=Algorithm(schedule=Hierarchical(FixedPeriod(8), FixedPeriod(4)), averaging=Blocks()),
    ),
    Recipe(
        name="dynamic-averaging",
        summary="Look every few steps whether a worker is too far from the last mean, and average only then.",
        citation="Kamp, Adilova, Sicking, Hüger, Schlicht, Wirtz, Wrobel. Efficient Decentralized Deep Learning by "
        "Dynamic Model Averaging. ECML PKDD 2018",
        formula="every b steps: if ‖x_i − anchor‖² > δ for any i then x_i ← Σ_j p_j x_j; at the 16th look anyhow",
        traps="δ is a squared distance over all parameters: it depends on model and rate, and needs a search.",
        algorithm=Algorithm(schedule=Dynamic(every=4, delta=1.0, most=16)),
    ),
    Recipe(
        name="qsr",
        summary="The period grows with the inverse square of the learning rate: generalises better.",
        citation="Gu, Lyu, Arora, Zhang, Huang. A Quadratic Synchronization Rule for Distributed Deep Learning. "
        "ICLR 2024",
        formula="τ = max(base, ⌊(c/η)²⌋)",
        traps="c has the unit of a learning rate and needs a search; with a constant rate it is a fixed period.",
        algorithm=Algorithm(schedule=QSR()),
    ),
    Recipe(
        name="one-shot",
        summary="Train alone to the end and average once.",
        citation="Zinkevich, Weimer, Smola, Li. Parallelized Stochastic Gradient Descent. NeurIPS 2010; McDonald, "
        "Hall, Mann. Distributed Training Strategies for the Structured Perceptron. NAACL 2010",
        formula="x_i ← x_i − η g_i to the end; then x ← Σ_i p_i x_i",
        traps="For convex models. The mean of networks that never met is worthless: begin together (swap).",
        algorithm=Algorithm(schedule=Once()),
    ),
    Recipe(
        name="swap",
        summary="Synchronous large batches down to a loss level, then train alone and average at the end.",
        citation="Gupta, Serrano, DeCoste. Stochastic Weight Averaging in Parallel: Large-Batch Training that "
        "Generalizes Well. ICLR 2020",
        formula="τ = 1 on gradients until the training loss is at most 0.3; then one-shot",
        traps="The level is the task's to choose. BatchNorm statistics have to be recomputed for the mean model "
        "(torch.optim.swa_utils.update_bn); those pooled from the workers are not its own.",
        algorithm=Algorithm(schedule=Switch(EveryStep(), Once(), when=AtLoss(0.3))),
    ),
)
