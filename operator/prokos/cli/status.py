"""Showing a running system to a person."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from prokos.cli.output import OutputFormat, print_rows
from prokos.cli.running import get_json

if TYPE_CHECKING:
    from collections.abc import Mapping

TASK_COLUMNS = {
    "seen": "TIME",
    "beat": "BEAT",
    "process": "PROCESS",
    "instance": "INSTANCE",
    "element": "ELEMENT",
    "job": "JOB",
    "executor": "EXECUTOR",
    "why": "ROUTED BY",
    "state": "STATE",
    "message": "MESSAGE",
}

EXECUTOR_COLUMNS = {
    "name": "NAME",
    "type": "TYPE",
    "workers": "WORKERS",
    "restarts": "RESTARTS",
    "inFlight": "IN FLIGHT",
    "accepts": "ACCEPTS",
    "message": "MESSAGE",
}


def task_row(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task as a row of a table."""
    why = f"{task['source']}: {task['reason']}" if task.get("source") else ""
    name = f"{task['element']} ({task['name']})" if task.get("name") else task["element"]
    clock = time.strftime("%H:%M:%S", time.localtime(task["seen"]))
    return {**task, "seen": clock, "why": why, "element": " ".join(name.split())}


def executor_row(executor: Mapping[str, Any]) -> dict[str, Any]:
    """An executor as a row of a table."""
    accepts = "; ".join(", ".join(f"{key}={value}" for key, value in rule.items()) for rule in executor["accepts"])
    return {**executor, "workers": f"{executor['running']}/{executor['wanted']}", "accepts": accepts}


def print_status(status: Mapping[str, Any]) -> None:
    """Print the kernel's status."""
    engine, pdo = status["engine"], status["pdo"]
    detail = engine.get("message") or f"version {engine['version']}"
    print(f"Engine     {'ready' if engine['ready'] else 'NOT READY'}   {engine['address']}   {detail}")  # noqa: T201
    print(f"Kernel     {'booted' if status['booted'] else 'booting'}   version {status['version']}")  # noqa: T201
    for shard in pdo.get("shards", []):
        age = pdo["now"] - shard["at"]
        print(f"Heartbeat  shard {shard['shard']}: beat {shard['beat']}, {age:.1f} s ago")  # noqa: T201
    if not pdo.get("shards"):
        print("Heartbeat  none yet")  # noqa: T201
    counts = ", ".join(f"{state} {count}" for state, count in sorted(pdo.get("counts", {}).items()))
    print(f"Tasks      {counts or 'none yet'}\n")  # noqa: T201
    print_rows([executor_row(row) for row in status["executors"]], EXECUTOR_COLUMNS, OutputFormat.TABLE, "no executors")
    print()  # noqa: T201
    columns = {"process": "PROCESS", "version": "VERSION", "tasks": "TASKS", "retired": "RETIRED"}
    print_rows(status["processes"], columns, OutputFormat.TABLE, "no processes")
    for refusal in status["refusals"]:
        print(f"\nREFUSED {refusal['kind']} {refusal['name']}: {refusal['message']}")  # noqa: T201
    for problem in status["problems"]:
        print(f"\nMANIFEST {problem}")  # noqa: T201


def follow_tasks(address: str, output: OutputFormat) -> None:
    """Print tasks as they come and change, until interrupted."""
    import json

    shown: dict[str, str] = {}
    while True:
        found = get_json(address, "/tasks?limit=200") or []
        for task in reversed(found):
            key = f"{task['job']}-{task['retries']}"
            if shown.get(key) == task["state"]:
                continue
            shown[key] = task["state"]
            if output is OutputFormat.JSON:
                print(json.dumps(task, ensure_ascii=False), flush=True)  # noqa: T201
                continue
            row = task_row(task)
            where = f"{row['process']}/{row['instance']} {row['element']}"
            to = f" -> {row['executor']} ({row['why']})" if row["executor"] else ""
            message = f": {row['message']}" if row["message"] else ""
            print(f"{row['seen']} beat {row['beat']} {where}{to} {row['state']}{message}", flush=True)  # noqa: T201
        time.sleep(0.3)
