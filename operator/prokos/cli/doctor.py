"""`prokos doctor`: what this machine has and lacks, and what the running engine can and cannot do."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from prokos.cli.running import get_json
from prokos.dev.state import Runtime, StateDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MINIMUM_DISK = 2 * 1024**3
"""Free bytes that the engine's installation (0.6 GB while it unpacks) and its state need with room to spare."""

MINIMUM_MEMORY = 2 * 1024**3
"""Bytes of memory: the engine takes about 1.1 GB, the PDO and a few workers the rest."""

TESTED_ENGINES = ("8.6.0", "8.8.21")
"""Engine versions that the tests run on: the distribution, and the in-memory engine for process tests."""

FEATURES = (
    ((8, 7), "ad-hoc sub-processes"),
    ((8, 8), "search of instances and incidents by query (with a secondary storage), task listeners"),
    ((8, 9), "conditional events"),
    ((8, 10), "job leases that fence off a worker whose lease is over"),
)
"""What engines can do from which version on, as far as processes may want it."""

QUERIES = (8, 8)
"""Since when engines can be searched. Whether one can be does not show in gRPC, and nothing of ProkOS needs it."""

REMEMBERING = (8, 7)
"""Since when all releases of Camunda notice the end of every lease. The version tells no patches' dates apart."""

FORGETTING = "patches before April 2025 may forget a task whose worker died: docs/engines.md, An engine elsewhere"


async def run_checks(state: Path | None) -> list[dict[str, Any]]:
    """All checks: name, whether it is well, and what was found or what to do."""
    directory = StateDirectory.find(state)
    checks = [*_machine(directory), *_engine_files()]
    runtime = Runtime.read(directory)
    if runtime is None:
        checks.append(_check("system", True, f"nothing runs in {directory.root}; start it with: prokos dev"))
        return checks
    status = get_json(runtime.kernel, "/status")
    if status is None:
        checks.append(_check("kernel", False, f"does not answer at {runtime.kernel}; see: prokos logs"))
        return checks
    return [*checks, *_system(status)]


def _check(name: str, ok: bool, detail: str) -> dict[str, Any]:
    return {"check": name, "ok": ok, "detail": detail}


def _machine(directory: StateDirectory) -> Iterator[dict[str, Any]]:
    import psutil

    yield _check("python", sys.version_info >= (3, 11), sys.version.split()[0])
    memory = psutil.virtual_memory().available
    yield _check("memory", memory > MINIMUM_MEMORY, f"{memory / 1e9:.1f} GB available, 2 GB are needed")
    existing = next(parent for parent in (directory.root, *directory.root.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    yield _check("disk", free > MINIMUM_DISK, f"{free / 1e9:.1f} GB free at {existing}, 2 GB are needed")
    writable = os.access(existing, os.W_OK)
    yield _check("state directory", writable, f"{directory.root}{'' if writable else ': not writable'}")


def _engine_files() -> Iterator[dict[str, Any]]:
    from prokos.engine.distribution import DEFAULT_VERSION, EngineSetupError, installed_distribution
    from prokos.engine.java import find_java

    try:
        java = find_java()
        yield _check("java", True, f"{java.version} at {java.executable}")
    except EngineSetupError as error:
        yield _check("java", False, str(error))
    try:
        home = installed_distribution(DEFAULT_VERSION)
        found = f"{DEFAULT_VERSION} at {home}" if home else f"{DEFAULT_VERSION} not installed yet; prokos dev does it"
        yield _check("engine distribution", True, found)
    except EngineSetupError as error:
        yield _check("engine distribution", False, str(error))


def _system(status: dict[str, Any]) -> Iterator[dict[str, Any]]:
    engine = status["engine"]
    if not engine["ready"]:
        yield _check("engine", False, f"{engine['address']}: {engine.get('message', 'not ready')}")
    else:
        yield _check("engine", True, describe_engine(engine["version"], embedded=engine["embedded"]))
    yield _check("kernel", status["booted"], "booted" if status["booted"] else "booting; see: prokos logs kernel")
    ages = [status["pdo"]["now"] - shard["at"] for shard in status["pdo"].get("shards", [])]
    beating = bool(ages) and max(ages) < 10
    yield _check("heartbeat", beating, f"last beat {max(ages):.1f} s ago" if ages else "none; see: prokos logs pdo")
    for executor in status["executors"]:
        well = executor["running"] >= executor["wanted"]
        detail = f"{executor['running']} of {executor['wanted']} workers"
        yield _check(f"executor {executor['name']}", well, f"{detail}; {executor['message']}".rstrip("; "))
    for refusal in status["refusals"]:
        yield _check(f"{refusal['kind']} {refusal['name']}", False, refusal["message"])


def describe_engine(version: str, *, embedded: bool) -> str:
    """An engine's version, whether we test it, what it lacks, and for one that we do not start what it may forget."""
    parts = tuple(int(part) for part in version.split("-", maxsplit=1)[0].split(".")[:2] if part.isdecimal())
    lacking = [f"{feature} ({since[0]}.{since[1]})" for since, feature in FEATURES if parts < since]
    tested = "tested" if version in TESTED_ENGINES else f"not tested; tested are {', '.join(TESTED_ENGINES)}"
    lacks = f"; lacks {'; '.join(lacking)}" if lacking else ""
    unseen = "; can be searched if it has a secondary storage, which is not looked for" if parts >= QUERIES else ""
    forgets = "" if embedded or parts >= REMEMBERING else f"; {FORGETTING}"
    return f"version {version} ({tested}){lacks}{unseen}{forgets}"
