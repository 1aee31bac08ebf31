"""Streams on real processes that are killed, told to go and resumed: each row once an epoch, seen from the outside."""

from __future__ import annotations

from collections import Counter

import pytest
from stream_run import EPOCHS, FORMATS, IDS, StreamRun, tokens_of

pytestmark = [pytest.mark.ray, pytest.mark.long]


def check(run: StreamRun) -> None:
    result = run.result
    assert result["status"] == "finished"
    assert (result["samples_lost"], result["samples_repeated"]) == (0, 0)
    trained = run.trained()
    if run.kind != "packed":
        for epoch in range(EPOCHS):
            assert trained[epoch] == Counter(dict.fromkeys(IDS, 1)), epoch
        return
    split = sum(_check_packed(trained[epoch]) for epoch in range(EPOCHS))
    assert split <= result["rows_split"]


def _check_packed(trained: Counter[int]) -> int:
    """Return the number of rows of which tokens were trained on twice; few are missing: rests of lists."""
    wanted = {number: len(tokens_of(number)) for number in IDS}
    lacking = sum(max(0, tokens - trained[number]) for number, tokens in wanted.items())
    assert lacking <= 6 * 40
    return sum(trained[number] > tokens for number, tokens in wanted.items())


@pytest.mark.parametrize("kind", ["jsonl", "packed"])
def test_each_row_is_trained_on_once_through_a_kill_a_sigterm_joins_and_a_resume(cluster, tmp_path, kind):
    run = StreamRun(tmp_path, kind, cluster, 0)
    run.run()
    check(run)


@pytest.mark.study
@pytest.mark.parametrize("seed", range(1, 20))
def test_json_lines_again_and_again(cluster, tmp_path, seed):
    run = StreamRun(tmp_path, "jsonl", cluster, seed)
    run.run()
    check(run)


@pytest.mark.study
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "jsonl"])
def test_other_formats_and_packing(cluster, tmp_path, kind, seed):
    if kind == "huggingface":
        pytest.importorskip("datasets")
    run = StreamRun(tmp_path, kind, cluster, seed)
    run.run()
    check(run)
