"""Random configurations, settings and command lines: mostly plausible, with odd values in odd places."""

from __future__ import annotations

import copy
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import yaml

from raysgd_local import config
from raysgd_local.algorithms.recipes import RECIPES
from raysgd_local.algorithms.schedules import SCHEDULES
from raysgd_local.config.alternatives import BUILDER

KINDS = {
    "algorithm.schedule.kind": " ".join(SCHEDULES),
    "algorithm.averaging.kind": "mean elastic gossip blocks",
    "algorithm.outer.kind": "optimizer block-momentum slowmo max-change",
    "algorithm.compression.kind": "half int8 top-k random-k sign",
    "algorithm.placement.kind": "disjoint redundant label-skewed",
    "algorithm.weights.kind": "samples fednova",
    "task.name": "digits fashion-mnist",
    "task.optimizer.name": "sgd adam adamw",
    "task.learning_rate.kind": "constant multistep cosine",
    "algorithm.schedule.when.kind": "epoch first-decay loss stability",
}
SECTIONS = ["task", "algorithm", "workers", "data", "stop", "checkpoints", "timeouts", "network"]
TEXTS = [
    *(
        "",
        " ",
        "~",
        "~nobody",
        "null",
        "digits",
        "fixed",
        "auto",
        "../x",
        "a/b",
        "/",
        ".",
        "..",
        "-",
        "--",
        "a" * 300,
    ),
    *("x" * 20_000, "ü", "τ", "\ud800", "\x00", "a\nb", "\x1b[31m", "s3://bucket/x", "nowhere://x", "file:///x"),
    *("a:b", ":", "a:", ":b", "os:getcwd", "collections:Counter", "a..b:C", ".x:Y", "this_module_is_absent:X"),
    *(
        "exits_on_import:X",
        "raises_on_import:X",
        "raises_baseexception:X",
        "misbehaving:Broken",
        "misbehaving:Odd",
    ),
    *(
        "misbehaving:Exits",
        "misbehaving:NotATask",
        "misbehaving:Annotated",
        "misbehaving:function",
        "misbehaving:Hints",
    ),
    *(
        "1e400",
        "0x" + "f" * 5000,
        "9" * 5000,
        "1_000",
        "1:60:60",
        "2020-13-45",
        "!!int x",
        "!!binary a",
        "&a [*a]",
    ),
    *(
        "[" * 1500,
        "{a: " * 1500,
        "{1: 2}",
        "{[a]: b}",
        "{? [a]: b}",
        "{null: 1}",
        "{true: 1}",
        "{a: 1, a: 2}",
        "[a, b",
    ),
    *(
        "'",
        '"',
        "\t",
        "%",
        "@",
        "`",
        "|",
        ">",
        "? a",
        "<<: 1",
        "{<<: 3}",
        "- - - a",
        "a: b: c",
        "*x",
        "!x y",
        "# c",
    ),
    *(
        "!!python/object/apply:os.system [ls]",
        "!!float ''",
        "!!timestamp x",
        "!!bool x",
        "!!set {a}",
        "!!omap [a]",
    ),
]
NUMBERS: list[Any] = [
    *(0, 1, -1, 2, 3, 4, 8, 100, 10_000, 10_001, 2**31, 2**32, 2**63, 2**64, 10**12, 10**30, 10**400, -(10**30)),
    *(0.0, 0.5, -0.5, 1.0, 1.5, 1e-320, 1e-9, 1e9, 1e300, -1e300, float("inf"), float("-inf"), float("nan")),
]


def odd_value(random: Random, depth: int = 0) -> Any:
    """Return a value that hardly any setting takes."""
    choice = random.randrange(12)
    if choice < 4:
        return random.choice(NUMBERS)
    if choice < 7:
        return random.choice(TEXTS)
    if choice == 7:
        return random.choice([None, True, False])
    if choice == 8 and depth < 4:
        return [odd_value(random, depth + 1) for _ in range(random.randrange(4))]
    if choice == 9 and depth < 4:
        return {odd_key(random): odd_value(random, depth + 1) for _ in range(random.randrange(4))}
    if choice == 10:
        return nested(random.choice([3, 20, 60, 300]))
    return [random.choice(NUMBERS)] * random.choice([1, 10, 10, 2000])


def odd_key(random: Random) -> Any:
    return random.choice([*NUMBERS[:20], None, True, *TEXTS, *SECTIONS, "kind", "name"])


def nested(depth: int) -> Any:
    """Return a list or mapping that many levels deep."""
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def paths_of(tree: Any, before: str = "") -> Iterator[str]:
    """Yield the dotted path of each setting in a configuration."""
    for key, value in tree.items():
        yield f"{before}{key}"
        if isinstance(value, dict):
            yield from paths_of(value, f"{before}{key}.")


def plausible_value(random: Random, path: str, value: Any) -> Any:
    """Return another value of the kind that this setting has."""
    if path in KINDS:
        return random.choice(KINDS[path].split())
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice([0, 1, 2, 3, 5, 16, value + 1, 10 * value])
    if isinstance(value, float):
        return random.choice([0, 0.1, 0.5, 1, value / 2, value * 10])
    return value


@dataclass(frozen=True)
class Case:
    """A command line and the files that it names."""

    arguments: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)  # content by name


def base(random: Random) -> dict[str, Any]:
    """Return a valid configuration as plain values, of some recipe."""
    tree = copy.deepcopy(config.plain())
    if random.random() < 0.7:
        tree["algorithm"] = BUILDER.plain(random.choice(list(RECIPES.values())).algorithm)
    if random.random() < 0.5:
        full = yaml.safe_load(config.from_mapping(config.plain()).to_yaml())
        tree |= {name: full[name] for name in random.sample(SECTIONS[2:], 3)}
    return tree


def mutated(random: Random, tree: dict[str, Any]) -> Any:
    """Change some settings, drop some, add some; or return something else altogether."""
    if random.random() < 0.02:
        return odd_value(random)
    for _ in range(random.choice([0, 1, 1, 2, 4])):
        paths = [*paths_of(tree), *SECTIONS]
        *parents, last = random.choice(paths).split(".")
        inner: Any = tree
        for parent in parents:
            inner = inner.get(parent) if isinstance(inner, dict) else None
        if not isinstance(inner, dict):
            continue
        act = random.randrange(6)
        if act == 0:
            inner.pop(last, None)
        elif act == 1:
            inner[odd_key(random)] = odd_value(random)
        elif act == 2:
            inner[misspelt(random, last)] = inner.get(last)
        elif act == 3:
            inner[last] = odd_value(random)
        else:
            inner[last] = plausible_value(random, ".".join([*parents, last]), inner.get(last))
    return tree


def misspelt(random: Random, name: str) -> str:
    place = random.randrange(len(name) + 1)
    return name[:place] + random.choice(string.ascii_lowercase + "._- ") + name[place + 1 :]


def text_of(random: Random, tree: Any) -> str:
    """Write a configuration as YAML, sometimes broken."""
    try:
        text: str = yaml.dump(tree, sort_keys=False, allow_unicode=random.random() < 0.5)
    except (yaml.YAMLError, RecursionError, ValueError):
        text = repr(random.choice(TEXTS))
    if random.random() < 0.04 and text:
        place = random.randrange(len(text))
        text = text[:place] + random.choice(TEXTS)[:5000] + text[place + random.randrange(5) :]
    return text


def setting(random: Random) -> str:
    """Return the value of one `--set`."""
    paths = [*paths_of(base(random)), *KINDS, "name", "storage", "seed", *SECTIONS]
    key = random.choice(paths)
    if random.random() < 0.1:
        key = random.choice(
            [misspelt(random, key), random.choice(TEXTS), f"{key}.{random.choice(paths)}", "a." * 3000 + "b"]
        )
    value = random.choice([*NUMBERS, *TEXTS, *KINDS.get(key, "true [] {} 2 3 16").split()])
    equals = "" if random.random() < 0.03 else "="
    try:
        return f"{key}{equals}{value}"
    except ValueError:  # an integer of thousands of digits
        return f"{key}={'9' * 5000}"


def options(random: Random, command: str) -> list[str]:
    """Return options of a command, most of them with odd values."""
    odd = lambda: random.choice([*TEXTS, "0", "1", "-1", "3", "9" * 31, "nan", "inf", "1e999", "9" * 5000])  # noqa: E731
    chaos = ["kill:1@round=3", "kill:1", "stop:9@1s", "kill:" + "9" * 5000 + "@1s", "kill:1@" + "9" * 5000 + "s"]
    chaos += [
        "slow:1x" + "9" * 400 + "@1s",
        "drain:node1@1s",
        "kill:1@round=" + "9" * 5000,
        "; ;",
        "kill:1@round=2; " * 2000,
    ]
    known: dict[str, list[str]] = {
        "train": ["--method", "--storage", "--name", "--resume", "--address", "--chaos"],
        "simulate": [
            "--method",
            "--storage",
            "--name",
            "--workers",
            "--cluster",
            "--step-ms",
            "--bandwidth-mbps",
            "--latency-ms",
        ],
        "plan": ["--method", "--workers", "--cluster", "--bandwidth-mbps", "--latency-ms"],
        "tune": ["--storage", "--name", "--resume", "--address", "--simulate", "--cluster", "--top"],
        "submit": ["--method", "--storage", "--name", "--working-dir", "--chaos"],
        "report": ["--output"],
        "replay": ["--show", "--import"],
        "search": ["--seeds", "--first", "--jobs", "--most", "--marks"],
        "methods": [],
    }
    known["simulate"] += ["--chaos", "--seed", "--timing-only"]
    found = []
    for name in random.sample(known[command], min(len(known[command]), random.choice([0, 0, 1, 2]))):
        found.append(name)
        if name not in ("--timing-only", "--simulate", "--show", "--marks"):
            good = {
                "--method": list(RECIPES),
                "--chaos": chaos,
                "--cluster": ["cluster.yaml", "run"],
                "--name": ["n"],
                "--resume": ["run", "auto"],
            }
            good |= {
                "--storage": ["runs"],
                "--working-dir": ["."],
                "--address": ["127.0.0.1:1"],
                "--import": ["json"],
            }
            usual = good.get(name, ["1", "2", "3"])
            found.append(random.choice(usual) if random.random() < 0.6 else odd())
    if random.random() < 0.05:
        found.append(random.choice(["--help", "--version", "--no-such", "-x", "--", "--set", "--resume=auto"]))
    return found


CLUSTER = """
steps: {kind: shifted-exponential, shift_s: 0.08, tail_s: 0.02}
latency_ms: 1
bandwidth_mbps: 100
speeds: [1.0, 0.5]
nodes: {workers: 2}
failures: {deaths_per_hour: 0.02, replacement_s: 60}
"""
SWEEP = """
settings: {task.epochs: 3, stop.target: {metric: accuracy, value: 0.95}}
space:
  algorithm.schedule.tau0: {choice: [4, 8, 16, 32]}
  algorithm.schedule.gamma: {uniform: [0.3, 0.9]}
metric: time_to_target_s
budget: {trials: 4, training_s: 8}
scheduler: {kind: asha, grace_s: 2}
searcher: {kind: random, seed: 3}
"""


def case(seed: int) -> Case:
    """Return the command line with this number."""
    random = Random(f"configurations {seed}")
    command = random.choices(
        ["train", "simulate", "plan", "tune", "submit", "report", "replay", "search", "methods"],
        [30, 15, 8, 15, 6, 4, 3, 3, 2],
    )[0]
    files = {
        "config.yaml": text_of(random, mutated(random, base(random))),
        "cluster.yaml": text_of(random, mutated(random, yaml.safe_load(CLUSTER))),
        "sweep.yaml": text_of(random, mutated(random, yaml.safe_load(SWEEP))),
    }
    words = [command]
    given = {"tune": "sweep.yaml", "report": "run", "replay": "run", "methods": "adacomm"}.get(
        command, "config.yaml"
    )
    if command != "search" and random.random() < 0.85:
        odd = ["config.yaml", "run", ".", "absent", "config.yam", *TEXTS[:20]]
        words.append(random.choice(odd) if random.random() < 0.08 else given)
    if command in ("train", "simulate", "plan", "tune", "submit"):
        words += [word for _ in range(random.choice([0, 0, 1, 2])) for word in ("--set", setting(random))]
    return Case((*words, *options(random, command)), files)
