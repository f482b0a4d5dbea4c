"""Starting, cancelling and mending process instances."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from prokos.cli.output import FAILED, INVALID, OutputFormat, print_error, print_json, print_note
from prokos.cli.running import connection_or_exit, get_json, get_or_exit, pdo_address, pdo_or_exit
from prokos.engine import EngineClient, EngineError, EngineUnavailableError, NotFoundError, RetryPolicy, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prokos.engine import Connection, ProcessResult

PATIENCE = 10.0
"""Seconds a command repeats what a busy or restarting engine refuses."""

TASKS_TIMEOUT = 5.0
"""Seconds a look at the PDO's tasks may take: they are looked at beside the instance, which must not wait for it."""

WATCH_INTERVAL = 0.5
"""Seconds between looks at the tasks of a process that is waited for."""


def open_client(connection: Connection) -> EngineClient:
    """A client that gives up in a time a person waits."""
    return EngineClient(connection, RetryPolicy(patience=PATIENCE))


async def start_process(
    process: str, variables: dict[str, Any], wait: bool, timeout: float, state: Path | None, output: OutputFormat
) -> int:
    """`prokos run`."""
    connection = connection_or_exit(state)
    async with open_client(connection) as client:
        try:
            if not wait:
                instance = await client.create_instance(process, variables)
                if output is OutputFormat.JSON:
                    print_json({"instance": str(instance.key), "process": process, "version": instance.version})
                else:
                    print(f"started {process} version {instance.version}, instance {instance.key}")  # noqa: T201
                return 0
            result = await run_and_watch(client, process, variables, timeout, pdo_address(state))
        except NotFoundError:
            print_error(f"no process {process!r} is deployed; see: prokos status")
            return INVALID
        except ValueError as error:
            print_error(f"variables: {error}")
            return INVALID
        except EngineUnavailableError as error:
            print_error(f"{process} has not ended within {timeout:g} s, or the engine is away: {error}")
            return FAILED
        except EngineError as error:
            print_error(str(error))
            return FAILED
    if isinstance(result, str):
        print_error(result)
        return FAILED
    print_result(result, output)
    return 0


async def run_and_watch(
    client: EngineClient, process: str, variables: Mapping[str, Any], timeout: float, pdo: str | None
) -> ProcessResult | str:
    """Run an instance to its end, or until one of its tasks becomes an incident: then say which and why.

    Raises:
        EngineError: The engine refuses, is away, or the time is over.
    """
    # The engine tells an instance's key only when it has ended; until then it is the one that was not there before.
    tasks = await _tasks(pdo, process)
    if tasks is None:
        return await client.run_instance(process, variables, timeout=timeout)
    before = {task["instance"] for task in tasks}
    running = asyncio.create_task(client.run_instance(process, variables, timeout=timeout))
    watching = asyncio.create_task(_first_incident(pdo, process, before))
    await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
    try:
        return await (running if running.done() else watching)
    finally:
        running.cancel()
        watching.cancel()
        await asyncio.gather(running, watching, return_exceptions=True)


async def _tasks(pdo: str | None, process: str) -> list[dict[str, Any]] | None:
    """What the PDO remembers of a process; None when it does not answer."""
    found = await asyncio.to_thread(get_json, pdo, "/tasks?limit=1000", TASKS_TIMEOUT) if pdo else None
    return None if found is None else [task for task in found if task["process"] == process]


async def _first_incident(pdo: str | None, process: str, before: set[str]) -> str:
    """Wait for an incident of the only new instance of a process; never ends otherwise."""
    while True:
        await asyncio.sleep(WATCH_INTERVAL)
        new = [task for task in await _tasks(pdo, process) or [] if task["instance"] not in before]
        stuck = [task for task in new if task["state"] in {"incident", "refused"}]
        if stuck and len({task["instance"] for task in new}) == 1:
            task = stuck[0]
            return (
                f"instance {task['instance']} of {process} has an incident at {task['element']}: {task['message']}\n"
                f"  when its cause is gone: prokos retry {task['job']}"
            )


def print_result(result: ProcessResult, output: OutputFormat) -> None:
    """Print how an instance ended."""
    if output is OutputFormat.JSON:
        print_json(
            {
                "instance": str(result.key),
                "process": result.process_id,
                "version": result.version,
                "variables": result.variables,
            }
        )
        return
    print(f"{result.process_id} version {result.version}, instance {result.key}: ended")  # noqa: T201
    for name, value in sorted(result.variables.items()):
        print(f"  {name} = {to_json({'': value})[4:-1]}")  # noqa: T201


async def publish_message(name: str, key: str, variables: dict[str, Any], ttl: float, state: Path | None) -> int:
    """`prokos publish`."""
    async with open_client(connection_or_exit(state)) as client:
        try:
            await client.publish_message(name, key, variables, ttl=ttl)
        except EngineError as error:
            print_error(str(error))
            return FAILED
    print_note(f"published {name}, correlation key {key!r}, kept for {ttl:g} s")
    return 0


async def cancel_instance(instance: int, state: Path | None) -> int:
    """`prokos cancel`."""
    async with open_client(connection_or_exit(state)) as client:
        try:
            await client.cancel_instance(instance)
        except NotFoundError:
            print_error(f"no process instance {instance} runs")
            return FAILED
        except EngineError as error:
            print_error(str(error))
            return FAILED
    print_note(f"cancelled {instance}")
    return 0


async def retry_task(job: str, state: Path | None) -> int:
    """`prokos retry`: the element instance with the incident is replaced by a new one."""
    pdo = pdo_or_exit(state)
    found = [task for task in get_or_exit(pdo, "/tasks?limit=1000", "pdo") if task["job"] == job]
    if not found:
        print_error(f"the PDO does not remember a task with job {job}; see: prokos tasks")
        return FAILED
    task = found[0]
    async with open_client(connection_or_exit(state)) as client:
        try:
            await client.restart_element(int(task["instance"]), task["element"], int(task["elementInstance"]))
        except NotFoundError:
            print_error(f"instance {task['instance']} is gone")
            return FAILED
        except EngineError as error:
            print_error(str(error))
            return FAILED
    print_note(f"{task['element']} of instance {task['instance']} starts again")
    return 0
