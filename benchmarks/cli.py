"""``metric-zoo bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Train, evaluate and measure what a recipe names.")

RecipeName = Annotated[
    str, typer.Argument(help="Read this recipe: a YAML file, or the name of one that comes with the package.")
]
Records = Annotated[Path, typer.Option(help="Keep the records in this folder; runs whose record is there are done.")]
Count = Annotated[int, typer.Option(help="Train each run in so many processes together, one per GPU, on all machines.")]
Cpu = Annotated[bool, typer.Option("--cpu", help="Use no GPU, even if there is one.")]


@app.callback()
def _bench() -> None:
    """Train, evaluate and measure what a recipe names."""


@app.command()
def run(
    recipe: RecipeName,
    out: Records = Path("records"),
    num_processes: Count = 1,
    cpu: Cpu = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run again what failed before.")] = False,
    num_machines: Annotated[
        int,
        typer.Option(
            help="Share the processes among so many machines: start this command on each, with the same folders."
        ),
    ] = 1,
    machine_rank: Annotated[int, typer.Option(help="Give this machine its number, from 0.")] = 0,
    main_process_ip: Annotated[str, typer.Option(help="Connect to machine 0 at this address.")] = "127.0.0.1",
    main_process_port: Annotated[
        int, typer.Option(help="Connect to machine 0 at this port, which is free there.")
    ] = 29500,
    tracker: Annotated[
        str | None, typer.Option(help="Write curves to OUT/logs by this tracker of accelerate's, such as tensorboard.")
    ] = None,
    keep_weights: Annotated[
        bool, typer.Option("--keep-weights", help="Keep the trained networks in OUT/weights.")
    ] = False,
) -> None:
    """Run a recipe: every model, kind and seed leaves one record.

    The same command goes on where it was stopped or killed; several at once share the runs. Exit code 1 if a run
    failed, 75 if it was stopped.
    """
    from metric_zoo.benchmarks.interruption import resumable

    with resumable():  # the imports take seconds
        from metric_zoo.benchmarks.launch import Processes, run_recipe
        from metric_zoo.benchmarks.recipe import find_recipe

        processes = Processes(num_processes, num_machines, machine_rank, main_process_ip, main_process_port)
        outcome = run_recipe(find_recipe(recipe), out, processes, cpu, retry_failed, tracker, keep_weights)
    elsewhere = f", {outcome['elsewhere']} in another launch" if outcome["elsewhere"] else ""
    left_out = f", {outcome['unreadable']} left out" if outcome["unreadable"] else ""
    typer.echo(
        f"{outcome['ok']} runs ok, {outcome['failed']} failed, {outcome['skipped']} of them done before{elsewhere}"
        f"{left_out}; records in {out}"
    )
    if outcome["failed"]:
        typer.echo("see 'failure' in the failed records; --retry-failed runs them again")
        raise typer.Exit(1)


app.command("launch", help="Run a recipe: the same as run, by the name that users of accelerate know.")(run)


@app.command()
def submit(
    recipe: RecipeName,
    jobs: Annotated[int, typer.Option(help="Submit so many jobs that share the runs.")],
    out: Records = Path("records"),
    executor: Annotated[
        str, typer.Option(help="Run the jobs by this executor: slurm, or local (processes of this machine).")
    ] = "slurm",
    num_processes: Annotated[int, typer.Option(help="Train in so many processes per job, one per GPU.")] = 1,
    cpu: Cpu = False,
    minutes: Annotated[int, typer.Option(help="End a job after so many minutes.")] = 24 * 60,
    partition: Annotated[str | None, typer.Option(help="Submit to this partition of Slurm.")] = None,
    keep_weights: Annotated[
        bool, typer.Option("--keep-weights", help="Keep the trained networks in OUT/weights.")
    ] = False,
) -> None:
    """Submit jobs: hand a recipe to a Slurm cluster as an array. Records are submitted by leaderboard submit."""
    from metric_zoo.benchmarks.recipe import find_recipe
    from metric_zoo.benchmarks.submit import submit_recipe

    options = {"slurm_partition": partition} if partition else None
    submitted = submit_recipe(
        find_recipe(recipe), out, jobs, executor, num_processes, cpu, minutes, options, keep_weights
    )
    typer.echo(
        f"submitted {', '.join(job.job_id for job in submitted)}; metric-zoo bench status tells how far they are"
    )


@app.command()
def plan(
    recipe: RecipeName,
    out: Records = Path("records"),
    num_processes: Count = 1,
    cpu: Cpu = False,
    estimate: Annotated[
        bool, typer.Option(help="Time a few training steps of every model and kind, to say how long a run takes.")
    ] = True,
) -> None:
    """List the runs of a recipe, with what each will take on this machine."""
    from metric_zoo.benchmarks.plan import plan_recipe
    from metric_zoo.benchmarks.recipe import find_recipe

    typer.echo(plan_recipe(find_recipe(recipe), out, num_processes, cpu, estimate))


@app.command()
def status(
    recipe: RecipeName,
    out: Records = Path("records"),
    num_processes: Annotated[
        int | None, typer.Option(help="Show only runs of so many processes; default: whatever is there.")
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Show only runs on a CPU.")] = False,
    gpu: Annotated[bool, typer.Option("--gpu", help="Show only runs on GPUs; this machine need not have one.")] = False,
) -> None:
    """Show which runs of a recipe are done, failed, in progress (and how far) or to do."""
    from metric_zoo.benchmarks.plan import show_status
    from metric_zoo.benchmarks.recipe import find_recipe

    typer.echo(show_status(find_recipe(recipe), out, num_processes, cpu, gpu))


@app.command()
def collect(
    records: Annotated[Path, typer.Argument(help="Read and change this folder, which bench run wrote.")],
) -> None:
    """Move a folder's records into one file of JSON lines per recipe, RECIPE.jsonl; exit code 1 if one is damaged."""
    from metric_zoo.benchmarks.collect import collect_records

    done = collect_records(records)
    typer.echo(f"{done.records} records in {', '.join(path.name for path in done.files) or 'no file'}")
    for problem in done.problems:
        typer.echo(f"left out: {problem}", err=True)
    if done.problems:
        raise typer.Exit(1)


@app.command()
def show(
    record: Annotated[Path, typer.Argument(help="Read this record, JSON, or every one of a file of JSON lines.")],
) -> None:
    """Print records for reading: their figures, their curves, where they come from."""
    from metric_zoo.benchmarks.show import show_record

    typer.echo(show_record(record))


@app.command()
def curves(
    records: Annotated[list[Path], typer.Argument(help="Read these records: JSON, or JSON lines.")],
    out: Annotated[Path, typer.Option(help="Write this picture: .svg, .png or .pdf.")] = Path("curves.svg"),
) -> None:
    """Draw training loss and test accuracy over the epochs."""
    from metric_zoo.benchmarks.curves import draw_curves

    draw_curves(records, out)
    typer.echo(f"curves: {out}")


@app.command()
def measure(
    records: Annotated[
        list[Path],
        typer.Argument(help="Read these records (JSON, or JSON lines) of runs with --keep-weights, and change them."),
    ],
    rounds: Annotated[int, typer.Option(help="Time in so many rounds, in which every network has its turn.")] = 5,
    cpu: Cpu = False,
    data_root: Annotated[
        str | None, typer.Option(help="Read the data from this folder; default: METRIC_ZOO_DATA.")
    ] = None,
) -> None:
    """Time trained networks again, in turns, on a quiet machine; their records get the figures."""
    from metric_zoo.benchmarks.remeasure import remeasure

    typer.echo(f"{remeasure(records, rounds, cpu, data_root)} records measured again")


@app.command()
def overhead(
    recipe: RecipeName,
    rounds: Annotated[int, typer.Option(help="Time so many epochs of each, in turns.")] = 7,
    cpu: Cpu = False,
) -> None:
    """Time the harness's training steps beside those of a plain PyTorch loop."""
    from metric_zoo.benchmarks.overhead import measure_overhead
    from metric_zoo.benchmarks.recipe import find_recipe

    typer.echo(measure_overhead(find_recipe(recipe), rounds, cpu))
