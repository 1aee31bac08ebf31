"""The beginning of a run, and beginning it again."""

from controller_run import started

from raysgd_local.control.controller import events as c
from raysgd_local.records import EvalRow


def test_an_evaluation_before_the_first_commit_is_forgotten_with_the_workers_that_made_it():
    """Across epochs loops evaluate in the middle of the first round: found by seed 20229 of the search."""
    run = started(across_epochs=True, epochs=3)
    evaluated = (EvalRow(0, 4, 4, 0, 1.0, {"loss": 1.0}),)
    for worker in ("w0", "w1"):
        run.arrive(worker, state={"evaluations": 1}, evaluations=evaluated)
    assert run.state.books.replicated.progress == (0, 1)
    run.tell(*(c.Died(worker, "killed") for worker in ("w0", "w1")))
    run.up("w2", "w3")
    assert run.said.count(c.RewindTables(0, 0)) == 1
    assert (run.order().replicated.evaluations, run.order().incarnation) == (0, 2)
