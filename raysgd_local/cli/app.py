"""The command line. It validates the user's input before it imports torch or Ray."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raysgd_local import signals
from raysgd_local.algorithms.validation import whole_number
from raysgd_local.console import say, show
from raysgd_local.errors import InputError, RaySGDError, cut

if TYPE_CHECKING:
    from raysgd_local.config import Config
    from raysgd_local.faults.language import Fault
    from raysgd_local.simulation.cluster.cluster_model import ClusterModel

INTERRUPTED = 130
_LONGEST = 2000  # characters of a message of the parser, which repeats what was typed
USAGE_ERROR: Any = typer.BadParameter.__base__  # typer's, or click's under older versions of typer

# Parameters of several commands.
ConfigFile = Annotated[Path | None, typer.Argument(help="A YAML file; without one, digits with 4 workers.")]
Method = Annotated[str | None, typer.Option(help="A recipe in place of the file's algorithm.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: task.epochs=5")
]
StoragePath = Annotated[str | None, typer.Option(help="The directory in which run directories are made.")]
RunName = Annotated[str | None, typer.Option(help="The run directory's name.")]
WorkersMax = Annotated[int | None, typer.Option(help="Number of workers (workers.max).")]
Chaos = Annotated[
    str,
    typer.Option(
        metavar="FAULTS", help="Faults to rehearse on the real processes: 'kill:1@round=20; stop:2@30s'."
    ),
]
ClusterFile = Annotated[
    Path | None,
    typer.Option(help="A YAML file that describes the cluster, or the directory of a run on it."),
]
Bandwidth = Annotated[
    float | None, typer.Option(help="Bandwidth of each worker's link, each way; overrides --cluster.")
]
Latency = Annotated[float | None, typer.Option(help="Latency of a message; overrides --cluster.")]

app = typer.Typer(
    help="Elastic distributed training on Ray with local-update SGD.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def run(arguments: Sequence[str]) -> int:
    """Run the command given by `arguments`, print errors on standard error, and return the exit status.

    0 finished, 1 error in user code, 2 bad input, 3 run lost; ended by a signal 128 + its number: 130 after Ctrl-C.
    """
    try:
        status = app(list(arguments), prog_name="raysgd-local", standalone_mode=False)
        return _ended(status if isinstance(status, int) else 0)
    except RaySGDError as error:
        return _tell(error, error.exit_status)
    except USAGE_ERROR as error:
        return _tell(cut(error.format_message(), _LONGEST), InputError.exit_status)
    except (KeyboardInterrupt, typer.Abort):
        return signals.end_of_command()
    except BaseException as error:
        if signals.received():
            return signals.end_of_command()  # a consequence of the signal, which came at a bad moment
        if isinstance(error, BrokenPipeError):
            return 0  # the reader wants no more, such as `head`
        if isinstance(error, OSError):  # such as a full disk under standard output
            return _tell(cut(f"{type(error).__name__}: {error}", _LONGEST), InputError.exit_status)
        raise


def _tell(message: object, status: int) -> int:
    say(f"error: {message}")
    return status


def _ended(status: int) -> int:
    """Return the status of a command that came to its end; typer returns 130 for `KeyboardInterrupt`."""
    return signals.end_of_command() if signals.received() and status in (0, INTERRUPTED) else status


def _print_version(asked: bool) -> None:
    if asked:
        print(f"raysgd-local {version('raysgd-local')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    show_version: Annotated[  # noqa: ARG001 - its callback has printed it, and ended the program
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def train(
    config: ConfigFile = None,
    method: Method = None,
    settings: Changes = None,
    storage: StoragePath = None,
    name: RunName = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="auto|PATH", help="Continue this run; auto: the run called --name, if it exists."),
    ] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster; without one, this machine.")] = None,
    chaos: Chaos = "",
) -> None:
    """Train. The last line printed is the run directory."""
    from raysgd_local import config as configuration
    from raysgd_local.faults.language import parse_real
    from raysgd_local.run_files import reader

    if resume is not None and resume != "auto":
        run = reader.enclosing(resume)
        config = config or run / reader.CONFIG
        if name is None:
            storage, name = str(run.parent), run.name
    plan = configuration.load(config, method=method, settings=settings or (), storage=storage, name=name)
    if resume == "auto" and plan.name is None:
        raise InputError("name", None, "the run's name, with --resume auto", "add --name")
    parse_real(chaos, plan.workers.max)
    plan.check()
    reader.check_storage(plan.storage)
    if resume is None and plan.name is not None:
        reader.refuse_existing(plan.storage, plan.name)
    from raysgd_local.trainer import LocalSGDTrainer

    result = LocalSGDTrainer.from_config(plan, chaos).fit(resume=resume, address=address)
    show(result.path)


@app.command()
def submit(
    config: ConfigFile = None,
    method: Method = None,
    settings: Changes = None,
    storage: StoragePath = None,
    name: RunName = None,
    address: Annotated[str, typer.Option(help="The cluster's job server.")] = "http://127.0.0.1:8265",
    working_dir: Annotated[Path, typer.Option(help="The directory that is sent to the job.")] = Path("."),
    chaos: Chaos = "",
) -> int:
    """Train on a remote cluster, as a Ray job, and show its log. Submitted again, the run continues."""
    from raysgd_local import config as configuration
    from raysgd_local.cli.job import as_job
    from raysgd_local.faults.language import parse_real

    plan = configuration.load(config, method=method, settings=settings or (), storage=storage, name=name)
    parse_real(chaos, plan.workers.max)
    job = as_job(plan, working_dir, config, method, settings or (), chaos)
    try:
        from raysgd_local.cli.submission import submit
    except ModuleNotFoundError as error:
        raise InputError("ray", None, "Ray with its job client: pip install 'ray[default]'", str(error)) from error
    with signals.raising():
        return submit(job, address)


@app.command()
def simulate(
    config: ConfigFile = None,
    method: Method = None,
    settings: Changes = None,
    storage: StoragePath = None,
    name: RunName = None,
    workers: WorkersMax = None,
    cluster: ClusterFile = None,
    step_ms: Annotated[float | None, typer.Option(help="Time of an optimizer step; overrides --cluster.")] = None,
    bandwidth_mbps: Bandwidth = None,
    latency_ms: Latency = None,
    chaos: Annotated[str, typer.Option(help='Faults, and when they happen: "kill:3@round=20; stop:2@30s"')] = "",
    seed: Annotated[
        int,
        typer.Option(help="Seed of the simulated times (the setting seed is the run's)."),
    ] = 0,
    timing_only: Annotated[
        bool,
        typer.Option("--timing-only", help="Simulate times without training: thousands of workers in seconds."),
    ] = False,
) -> None:
    """Train in virtual time, without a cluster: real training, simulated times. Prints the run directory."""
    from raysgd_local import config as configuration
    from raysgd_local.config.cluster import load_cluster
    from raysgd_local.faults import language
    from raysgd_local.planning.timed import check_timed
    from raysgd_local.run_files import reader

    whole_number("--seed", seed, at_least=0)
    steps = None if step_ms is None else {"kind": "constant", "mean_s": step_ms / 1000}
    overrides = {"steps": steps, "bandwidth_mbps": bandwidth_mbps, "latency_ms": latency_ms}
    model = load_cluster(cluster, overrides)
    schedule = language.parse(chaos)
    plan = configuration.load(config, method=method, settings=settings or (), storage=storage, name=name)
    plan = plan if workers is None else plan.with_workers(workers)
    if timing_only:
        check_timed(plan, model, chaos)
    plan.check()
    reader.check_storage(plan.storage)
    if plan.name is not None:
        reader.refuse_existing(plan.storage, plan.name)
    show(_time(plan, model, seed) if timing_only else _simulate(plan, model, schedule, seed))


def _time(plan: Config, cluster: ClusterModel, seed: int) -> Path:
    from raysgd_local.planning.forecast import timing_of
    from raysgd_local.run.request import from_config
    from raysgd_local.run.simulator import time_run

    return time_run(from_config(plan), timing_of(plan, cluster, seed))


def _simulate(plan: Config, cluster: ClusterModel, faults: tuple[Fault, ...], seed: int) -> Path:
    from raysgd_local.run.request import from_config
    from raysgd_local.run.simulator import Conditions, simulate_run

    return simulate_run(from_config(plan), Conditions(cluster, faults, seed))


@app.command()
def tune(
    sweep: Annotated[Path | None, typer.Argument(help="A YAML file; see docs/tuning.md.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the sweep (budget.trials=20) or what it trains."),
    ] = None,
    storage: StoragePath = None,
    name: Annotated[str | None, typer.Option(help="The sweep directory's name.")] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="auto|PATH", help="Continue this sweep; auto: the one called --name, if it exists."),
    ] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster; without one, this machine.")] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Try all points in virtual time, without Ray.")
    ] = False,
    cluster: ClusterFile = None,
    top: Annotated[int | None, typer.Option(help="With --simulate: run this many of the best for real.")] = None,
) -> None:
    """Run a sweep: runs that differ in some settings, compared by training time. Prints the sweep's directory."""
    from raysgd_local.config.cluster import load_cluster
    from raysgd_local.errors import InputError
    from raysgd_local.tuning import start

    if top is not None:
        whole_number("--top", top, at_least=1)
    if not simulate and (cluster is not None or top is not None):
        raise InputError("--simulate", None, "required with --cluster and --top")
    asked = start.asked(sweep, settings or (), storage, name, resume)
    narrowing = start.Narrowing(load_cluster(cluster), top) if simulate else None
    from raysgd_local.tuning import command

    command.run(asked.sweep, asked.directory, address, narrowing)
    show(asked.directory)


@app.command()
def plan(
    config: ConfigFile = None,
    method: Method = None,
    settings: Changes = None,
    workers: WorkersMax = None,
    cluster: ClusterFile = None,
    bandwidth_mbps: Bandwidth = None,
    latency_ms: Latency = None,
) -> None:
    """Measure a step on this machine, and forecast the time with each schedule on a cluster with these links."""
    from raysgd_local import config as configuration
    from raysgd_local.config.cluster import load_cluster

    model = load_cluster(cluster, {"bandwidth_mbps": bandwidth_mbps, "latency_ms": latency_ms})
    asked = configuration.load(config, method=method, settings=settings or ())
    asked = asked if workers is None else asked.with_workers(workers)
    asked.check()
    from raysgd_local.planning.text import print_plan

    with signals.raising():
        print_plan(asked, model)


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run directories.")],
    place: Annotated[Path | None, typer.Option("--output", help="The page's file.")] = None,
) -> None:
    """Write a self-contained HTML page about one or several runs. Prints the page's path."""
    from raysgd_local.report import write_report

    with signals.raising():
        show(write_report(runs, place))


@app.command()
def methods(name: Annotated[str | None, typer.Argument(help="A method, to show in full.")] = None) -> None:
    """List all methods with their papers, or show one in full."""
    from raysgd_local.cli import methods

    print(methods.one(name) if name else methods.every())


@app.command()
def replay(
    run: Annotated[str, typer.Argument(help="A run directory.")],
    show: Annotated[
        bool, typer.Option("--show", help="Print every event and the commands that answered it.")
    ] = False,
    modules: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Import this module first: a journal can't, only you."),
    ] = None,
) -> int:
    """Feed a run's journal to the controller again. The exit status is 1 if its decisions differ from the run's."""
    from raysgd_local.import_path import import_module
    from raysgd_local.run_files.journal import report

    for module in modules or ():
        import_module(module, "import")
    return report(run, show)


@app.command()
def search(
    seeds: Annotated[int, typer.Option(help="Number of seeds to try.")] = 1000,
    first: Annotated[int, typer.Option(help="The first seed.")] = 0,
    jobs: Annotated[int, typer.Option(help="Number of processes.")] = 1,
    most: Annotated[int, typer.Option(help="Stop after this many failures.")] = 20,
    chaos: Annotated[str | None, typer.Option(help="Faults that replace the first seed's own.")] = None,
    marks: Annotated[bool, typer.Option("--marks", help="Print how many seeds reached each mark.")] = False,
) -> int:
    """Search for bugs: check all invariants in random simulated runs. The exit status is 1 if one is violated."""
    from raysgd_local.simulation.search.seed_search import retry
    from raysgd_local.simulation.search.seed_search import search as search_seeds

    whole_number("--seeds", seeds, at_least=0)
    whole_number("--first", first, at_least=0)
    whole_number("--jobs", jobs, at_least=1, at_most=256)
    whole_number("--most", most, at_least=1)
    if chaos is not None:
        return retry(first, chaos)
    with signals.raising():
        return search_seeds(range(first, first + seeds), jobs, most, marks)
