"""All commands of `prokos`. Each imports what it needs when it runs: `prokos --help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from prokos.cli.output import (
    FAILED,
    INVALID,
    OutputFormat,
    print_error,
    print_json,
    print_note,
    print_problems,
    print_rows,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

app = typer.Typer(
    name="prokos",
    help="A process-centric operating system: every task a BPMN process on Camunda 8.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its help costs 0.3 s of imports
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or manifests, 3 nothing is running.",
)

State = Annotated[
    Path | None,
    typer.Option("--state", help="State directory of the embedded system.", show_default=".prokos, or PROKOS_STATE"),
]
Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="How to print the result.")]
Vars = Annotated[
    list[str] | None, typer.Option("--var", help="A variable, NAME=VALUE; JSON values are taken as such. Repeatable.")
]
VarsFile = Annotated[str | None, typer.Option("--vars", help="JSON file of variables; - is standard input.")]
Manifests = Annotated[list[Path] | None, typer.Argument(help="Manifest files or directories.", show_default="here")]


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    import asyncio

    return asyncio.run(work)


def _version(value: bool) -> None:
    if value:
        from prokos import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it.")] = False,
) -> None:
    from prokos.logs import configure_logging

    configure_logging()


@app.command()
def dev(
    paths: Manifests = None,
    state: State = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw the kept state away first.")] = False,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Keep no state at all.")] = False,
    run_process: Annotated[
        str | None, typer.Option("--run", help="Run this process once, show its result and routes, and stop.")
    ] = None,
    var: Vars = None,
    vars_file: VarsFile = None,
    timeout: Annotated[float, typer.Option(help="Seconds that --run waits for the process.")] = 120,
) -> None:
    """Run the whole system on this machine.

    Engine, kernel, PDO and executors, from manifests that may change meanwhile. Ctrl-C ends all of it.
    """
    from prokos.cli.dev import DevOptions, run_dev
    from prokos.cli.variables import read_variables

    options = DevOptions(
        manifests=[path.absolute() for path in paths or [Path()]],
        state=state,
        fresh=fresh,
        ephemeral=ephemeral,
        run_process=run_process,
        variables=read_variables(var or [], vars_file),
        timeout=timeout,
    )
    raise typer.Exit(run_async(run_dev(options)))


@app.command()
def validate(paths: Manifests = None, output: Output = OutputFormat.TABLE) -> None:
    """Check manifests and BPMN, offline.

    Exit code 2 if anything is wrong; warnings are no errors.
    """
    from dataclasses import asdict

    from prokos.processes import check_manifests

    checked = check_manifests(paths or [Path()])
    resources, problems, errors = len(checked.loaded.resources), checked.problems, len(checked.errors)
    if output is OutputFormat.JSON:
        print_json({"resources": resources, "problems": [asdict(problem) for problem in problems]})
    else:
        print_problems(problems)
        print_note(f"{resources} resources, {errors} errors, {len(problems) - errors} warnings")
    if errors:
        raise typer.Exit(INVALID)


@app.command()
def apply(
    paths: Annotated[list[Path], typer.Option("--filename", "-f", help="Manifest file or directory. Repeatable.")],
    state: State = None,
) -> None:
    """Add manifests to the running system.

    They stay applied when it starts again; `prokos delete` takes them back.
    """
    from prokos.cli.apply import apply_manifests

    raise typer.Exit(apply_manifests(paths, state))


@app.command()
def delete(
    kind: Annotated[str, typer.Argument(help="TaskExecutor, ProcessDefinition, TaskRoute or ProkOS.")],
    name: Annotated[str, typer.Argument(help="Name of the resource.")],
    state: State = None,
) -> None:
    """Take back what apply added."""
    from prokos.cli.apply import delete_manifest

    raise typer.Exit(delete_manifest(kind, name, state))


@app.command()
def run(
    process: Annotated[str, typer.Argument(help="BPMN process id.")],
    var: Vars = None,
    vars_file: VarsFile = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end and print its variables.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 300,
    state: State = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Start a process instance."""
    from prokos.cli.run import start_process
    from prokos.cli.variables import read_variables

    variables = read_variables(var or [], vars_file)
    raise typer.Exit(run_async(start_process(process, variables, wait, timeout, state, output)))


@app.command()
def publish(
    message: Annotated[str, typer.Argument(help="Message name.")],
    key: Annotated[str, typer.Option(help="Correlation key.")] = "",
    var: Vars = None,
    vars_file: VarsFile = None,
    ttl: Annotated[float, typer.Option(help="Seconds the message is kept if nobody waits for it.")] = 60,
    state: State = None,
) -> None:
    """Publish a message to waiting process instances."""
    from prokos.cli.run import publish_message
    from prokos.cli.variables import read_variables

    raise typer.Exit(run_async(publish_message(message, key, read_variables(var or [], vars_file), ttl, state)))


@app.command()
def callback(
    token: Annotated[str, typer.Argument(help="What the service was given with the call.")],
    result: Annotated[str | None, typer.Option(help="The result, as JSON.")] = None,
    error: Annotated[str | None, typer.Option(help="A business error with this code.")] = None,
    failure: Annotated[str | None, typer.Option(help="A technical failure with this message.")] = None,
    message: Annotated[str, typer.Option(help="Of the error.")] = "",
    var: Vars = None,
    final: Annotated[bool, typer.Option("--final", help="Do not try again after the failure.")] = False,
    state: State = None,
) -> None:
    """Bring the result of a long call that a task waits for.

    Variables are those of the error.
    """
    from prokos.cli.callback import send_callback
    from prokos.cli.variables import read_json, read_variables

    if sum(given is not None for given in (result, error, failure)) != 1:
        raise typer.BadParameter("give exactly one of --result, --error and --failure")
    if result is not None:
        brought: dict[str, Any] = {"result": read_json("--result", result)}
    elif error is not None:
        brought = {"error": {"code": error, "message": message, "variables": read_variables(var or [], None)}}
    else:
        brought = {"failure": {"message": failure, "retryable": not final}}
    raise typer.Exit(run_async(send_callback(token, brought, state)))


@app.command()
def receive(
    secret_env: Annotated[
        list[str], typer.Option(help="Environment variable with the secret of an executor's callbacks. Repeatable.")
    ],
    listen: Annotated[str, typer.Option(help="Where to listen, HOST:PORT.")] = "127.0.0.1:8090",
    state: State = None,
) -> None:
    """Take results of long calls over HTTP.

    Services POST them to /TOKEN, errors to /TOKEN/error and failures to /TOKEN/failure.
    """
    import os

    from prokos.cli.callback import receive_callbacks

    if missing := [name for name in secret_env if not os.environ.get(name)]:
        raise typer.BadParameter(f"environment variable {missing[0]} is not set")
    raise typer.Exit(run_async(receive_callbacks(listen, [os.environ[name] for name in secret_env], state)))


@app.command()
def cancel(
    instance: Annotated[int, typer.Argument(help="Process instance key.")],
    state: State = None,
) -> None:
    """Cancel a process instance; the TDEs of its tasks stop."""
    from prokos.cli.run import cancel_instance

    raise typer.Exit(run_async(cancel_instance(instance, state)))


@app.command()
def retry(
    job: Annotated[str, typer.Argument(help="Job key, as `prokos tasks` shows it.")],
    state: State = None,
) -> None:
    """Start a task with an incident afresh.

    It gets all its attempts again.
    """
    from prokos.cli.run import retry_task

    raise typer.Exit(run_async(retry_task(job, state)))


@app.command()
def status(
    state: State = None,
    output: Output = OutputFormat.TABLE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again every second.")] = False,
) -> None:
    """Show how the system is.

    Engine, heartbeat, executors, processes, and what was refused and why.
    """
    import time

    from prokos.cli.running import get_or_exit, runtime_or_exit
    from prokos.cli.status import print_status

    while True:
        found = get_or_exit(runtime_or_exit(state).kernel, "/status", "kernel")
        if watch and output is OutputFormat.TABLE:
            typer.echo("\x1b[H\x1b[2J", nl=False)
        print_json(found) if output is OutputFormat.JSON else print_status(found)
        if not watch:
            return
        time.sleep(1)


@app.command()
def tasks(
    state: State = None,
    output: Output = OutputFormat.TABLE,
    limit: Annotated[int, typer.Option(help="How many of the latest.")] = 30,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print tasks as they come and change.")] = False,
) -> None:
    """Show the latest tasks.

    Which beat, which process, routed where and why, and how they ended.
    """
    from prokos.cli.running import get_or_exit, pdo_or_exit
    from prokos.cli.status import TASK_COLUMNS, follow_tasks, task_row

    address = pdo_or_exit(state)
    if follow:
        follow_tasks(address, output)
        return
    found: list[dict[str, Any]] = get_or_exit(address, f"/tasks?limit={limit}", "pdo")
    rows = found if output is OutputFormat.JSON else [task_row(task) for task in found]
    print_rows(rows, TASK_COLUMNS, output, "no tasks yet")


@app.command()
def routes(state: State = None, output: Output = OutputFormat.TABLE) -> None:
    """Show every routing decision and its reason."""
    from prokos.dev.state import StateDirectory
    from prokos.registry import FileRegistry
    from prokos.router import known_routes

    directory = StateDirectory.find(state)
    if not directory.registry.is_dir():
        print_error(f"no system was ever started in {directory.root}")
        raise typer.Exit(FAILED)
    found = known_routes(FileRegistry(directory.registry).load())
    rows = [{"name": route.metadata.name, **route.spec.model_dump(by_alias=True)} for route in found]
    columns = {
        "process": "PROCESS",
        "version": "VERSION",
        "element": "ELEMENT",
        "executor": "EXECUTOR",
        "source": "SOURCE",
        "confidence": "CONFIDENCE",
        "reason": "REASON",
    }
    print_rows(rows, columns, output, "no routes yet")


@app.command()
def executors(state: State = None, output: Output = OutputFormat.TABLE) -> None:
    """Show the executors and their workers."""
    from prokos.cli.running import get_or_exit, runtime_or_exit
    from prokos.cli.status import EXECUTOR_COLUMNS, executor_row

    found = get_or_exit(runtime_or_exit(state).kernel, "/status", "kernel")["executors"]
    rows = found if output is OutputFormat.JSON else [executor_row(executor) for executor in found]
    print_rows(rows, EXECUTOR_COLUMNS, output, "no executors")


executor_app = typer.Typer(help="Write executors of your own.", no_args_is_help=True)
app.add_typer(executor_app, name="executor")


@executor_app.command("new")
def executor_new(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and hyphens: also the job type it accepts.")],
    directory: Annotated[
        Path | None, typer.Option("--directory", "-d", help="Where to write it.", show_default="NAME, here")
    ] = None,
) -> None:
    """Write a new executor in Python: class, TaskExecutor, tests, Dockerfile."""
    from pydantic import TypeAdapter, ValidationError

    from prokos.cli.scaffold import new_executor
    from prokos.resources.base import NAME_MAX_LENGTH, Name
    from prokos.resources.executor import RESERVED_NAMES

    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        print_error(f"{name!r} is no name: lower-case letters, digits and hyphens, at most {NAME_MAX_LENGTH}")
        raise typer.Exit(INVALID) from None
    if name in RESERVED_NAMES:
        print_error(f"{name!r} is the name of a part of ProkOS; choose another")
        raise typer.Exit(INVALID)
    try:
        written = new_executor(name, directory or Path(name))
    except OSError as error:
        print_error(str(error))
        raise typer.Exit(FAILED) from None
    for path in written:
        typer.echo(path)
    print_note(f"next: cd {directory or name}, pytest, prokos dev .")


@app.command()
def logs(
    name: Annotated[
        str | None, typer.Argument(help="engine, pdo, kernel or an executor; without it: which there are.")
    ] = None,
    state: State = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print what comes.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines.")] = 50,
) -> None:
    """Show the logs of the system's processes."""
    from prokos.cli.logs import show_logs

    raise typer.Exit(show_logs(name, state, follow, lines))


@app.command()
def doctor(state: State = None, output: Output = OutputFormat.TABLE) -> None:
    """Check this machine and the running system.

    What the machine lacks, which engine runs and what that version cannot do, which workers are missing.
    """
    from prokos.cli.doctor import run_checks

    checks = run_async(run_checks(state))
    columns = {"check": "CHECK", "ok": "OK", "detail": "DETAIL"}
    print_rows(checks, columns, output, "nothing to check")
    if not all(check["ok"] for check in checks):
        raise typer.Exit(FAILED)
