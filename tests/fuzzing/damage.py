"""Damage a run's directory at random: the same seed does the same damage."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILES = ("rounds.csv", "evals.csv", "events.jsonl", "journal.jsonl", "result.json", "config.yaml")

STRANGE: list[Any] = [
    *(None, True, False, -1, 0, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "000001", "é", "\x00", "a" * 10_000, [], {}, [None], [[]], {"": None}, [0] * 100, "nan", "1"),
]
"""Values that take the place of others in JSON."""


def damage(run: Path, seed: int) -> str:
    """Damage the run's directory once, or two or three times, and return what was done, in words."""
    draw = random.Random(seed)
    times = draw.choice([1, 1, 1, 2, 3])
    return "; ".join(_damaged(run, draw) for _ in range(times))


def _damaged(run: Path, draw: random.Random) -> str:
    kind = draw.choice(KINDS)
    return kind(run, draw) or "nothing"


def _file(run: Path, draw: random.Random, *endings: str) -> Path | None:
    """A file of the run; those of checkpoints as often as the others."""
    checkpoints = sorted(path for path in run.glob("checkpoints/*/*") if path.is_file())
    others = [run / name for name in FILES if (run / name).is_file()]
    pools = [[path for path in pool if path.suffix in endings or not endings] for pool in (checkpoints, others)]
    pools = [pool for pool in pools if pool]
    return draw.choice(draw.choice(pools)) if pools else None


def _changed(path: Path | None, what: str, change: Callable[[bytes], bytes]) -> str:
    if path is None:
        return ""
    path.write_bytes(change(path.read_bytes()))
    return f"{what} in {path.parent.name}/{path.name}"


def flip_bits(run: Path, draw: random.Random) -> str:
    def change(content: bytes) -> bytes:
        damaged = bytearray(content)
        for _ in range(draw.choice([1, 1, 2, 20]) if content else 0):
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        return bytes(damaged)

    return _changed(_file(run, draw), "bits flipped", change)


def truncate(run: Path, draw: random.Random) -> str:
    return _changed(_file(run, draw), "cut off", lambda content: content[: draw.randrange(len(content) + 1)])


def fill_with_zeros(run: Path, draw: random.Random) -> str:
    def change(content: bytes) -> bytes:
        kept = draw.randrange(len(content) + 1)
        return content[:kept] + bytes(len(content) - kept)

    return _changed(_file(run, draw), "zeros", change)


def insert_garbage(run: Path, draw: random.Random) -> str:
    garbage = draw.choice(
        [b'"', b"\n", b",", b"\r", b"\xff\xfe", b"\xef\xbb\xbf", b"{", b"[" * 5000, draw.randbytes(50)]
    )

    def change(content: bytes) -> bytes:
        place = draw.choice([0, len(content), draw.randrange(len(content) + 1)])
        return content[:place] + garbage + content[place:]

    return _changed(_file(run, draw), f"{garbage[:10]!r} put", change)


def change_lines(run: Path, draw: random.Random) -> str:
    """Lines repeated, left out, or exchanged."""

    def change(content: bytes) -> bytes:
        lines = content.split(b"\n")
        i, j = draw.randrange(len(lines)), draw.randrange(len(lines))
        match draw.randrange(3):
            case 0:
                lines.insert(i, lines[j])
            case 1:
                del lines[i]
            case _:
                lines[i], lines[j] = lines[j], lines[i]
        return b"\n".join(lines)

    return _changed(_file(run, draw, ".csv", ".jsonl", ".yaml"), "lines changed", change)


def change_cell(run: Path, draw: random.Random) -> str:
    value = draw.choice(
        ["", "x", "-1", "nan", "inf", "1e999", "9" * 30, "9" * 5000, "0.5", '"', "1_0", "٣", " 1", "0x1"]
    )

    def change(content: bytes) -> bytes:
        lines = content.split(b"\n")
        i = draw.randrange(len(lines))
        cells = lines[i].split(b",")
        cells[draw.randrange(len(cells))] = value.encode()
        lines[i] = b",".join(cells)
        return b"\n".join(lines)

    return _changed(_file(run, draw, ".csv"), f"a cell became {value[:10]!r}", change)


def change_json(run: Path, draw: random.Random) -> str:
    """A value at a random place: replaced, left out, or under another key. The rest keeps its form."""
    path = _file(run, draw, ".json", ".jsonl")
    if path is None:
        return ""
    lines = (
        path.read_text(errors="replace").split("\n")
        if path.suffix == ".jsonl"
        else [path.read_text(errors="replace")]
    )
    i = draw.randrange(len(lines))
    try:
        tree = json.loads(lines[i])
    except (ValueError, RecursionError):
        return ""
    what = _change_tree(tree, draw)
    lines[i] = json.dumps(tree)
    path.write_text("\n".join(lines))
    return f"{what} in {path.parent.name}/{path.name}"


def _change_tree(tree: Any, draw: random.Random) -> str:
    place, words = tree, ""
    while True:
        keys = (
            list(place) if isinstance(place, dict) else list(range(len(place))) if isinstance(place, list) else []
        )
        if not keys:
            return "nothing"
        key = draw.choice(keys)
        words += f"[{key!r}]"
        inner = place[key]
        if isinstance(inner, (dict, list)) and inner and draw.random() < 0.8:
            place = inner
            continue
        match draw.randrange(4):
            case 0:
                del place[key]
            case 1 if isinstance(place, dict):
                place[f"{key}_"] = place.pop(key)
            case 2 if isinstance(inner, (int, float)):
                place[key] = inner + draw.choice([-1, 1, 1000])
            case _:
                place[key] = draw.choice(STRANGE)
        return f"{words}: {inner!r} became {place[key]!r}"[:200] if _has(place, key) else f"{words} left out"


def _has(place: Any, key: Any) -> bool:
    return key in place if isinstance(place, dict) else key < len(place)


def replace_json(run: Path, draw: random.Random) -> str:
    text = draw.choice(["{}", "[]", "null", "1", '""', "[{}]", '{"schema": 99}', "[" * 100_000, "", " "])
    return _changed(_file(run, draw, ".json"), f"{text[:20]!r} alone", lambda _: text.encode())


def change_encoding(run: Path, draw: random.Random) -> str:
    encoding = draw.choice(["utf-16", "utf-8-sig", "utf-32", "cp037"])

    def change(content: bytes) -> bytes:
        return content.decode("utf-8", errors="replace").encode(encoding, errors="replace")

    return _changed(_file(run, draw, ".csv", ".json", ".jsonl", ".yaml"), encoding, change)


def delete(run: Path, draw: random.Random) -> str:
    path = _file(run, draw)
    if path is None:
        return ""
    path.unlink()
    return f"{path.parent.name}/{path.name} deleted"


def make_directory(run: Path, draw: random.Random) -> str:
    path = _file(run, draw)
    if path is None:
        return ""
    path.unlink()
    path.mkdir()
    if draw.random() < 0.5:
        (path / "inside").write_text("x")
    return f"{path.parent.name}/{path.name} a directory"


def make_link(run: Path, draw: random.Random) -> str:
    path = _file(run, draw)
    if path is None:
        return ""
    target = draw.choice(["nowhere", path.name, "/dev/null", "."])
    path.unlink()
    path.symlink_to(target)
    return f"{path.parent.name}/{path.name} a link to {target}"


def swap(run: Path, draw: random.Random) -> str:
    one, other = _file(run, draw), _file(run, draw)
    if one is None or other is None or one == other:
        return ""
    ours, theirs = one.read_bytes(), other.read_bytes()
    one.write_bytes(theirs)
    other.write_bytes(ours)
    return f"{one.parent.name}/{one.name} and {other.parent.name}/{other.name} exchanged"


def change_checkpoints(run: Path, draw: random.Random) -> str:
    """The folder of checkpoints, and what is in it: renamed, exchanged, files in the place of folders."""
    folder = run / "checkpoints"
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if not names:
        return ""
    name = draw.choice(names)
    match draw.randrange(5):
        case 0:
            shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
            (folder / name).write_text("x")
        case 1:
            (folder / name).rename(folder / draw.choice(["x", "7", "000009", "-00001", "9" * 40, "٠٠٠٠٠٣"]))
        case 2:
            shutil.rmtree(folder)
            folder.write_text("x")
        case 3:
            (folder / draw.choice(["000099", "notes.txt", "000003.tmp"])).mkdir(exist_ok=True)
        case _:
            (folder / names[0]).rename(folder / "moving")
            (folder / names[-1]).rename(folder / names[0]) if len(names) > 1 else None
            (folder / "moving").rename(folder / names[-1])
    return f"checkpoints/{name} changed"


KINDS: list[Callable[[Path, random.Random], str]] = [
    *(flip_bits, flip_bits, truncate, fill_with_zeros, insert_garbage, change_lines, change_cell),
    *(change_json, change_json, change_json, replace_json, change_encoding),
    *(delete, make_directory, make_link, swap, change_checkpoints),
]
