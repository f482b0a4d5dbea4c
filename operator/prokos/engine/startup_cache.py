"""The engine's start-up cache: the JVM's classes, loaded, linked and profiled ahead of time.

It halves a start, costs 160 MB of disk, and changes nothing later. A cache is made by a training run of the
broker and holds for one distribution, Java and set of JVM options; what does not fit, the JVM finds out itself and
starts without it. Java 25 and newer; before, there is none.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from prokos.engine.client import EngineClient
from prokos.engine.connection import Connection
from prokos.engine.distribution import (
    DEFAULT_VERSION,
    EngineSetupError,
    cache_directory,
    no_progress,
    obtain_distribution,
)
from prokos.engine.embedded_process import BrokerProcess, find_free_ports
from prokos.engine.embedded_settings import (
    AOT_JAVA,
    EmbeddedSettings,
    build_command,
    build_environment,
    build_jvm_options,
)
from prokos.engine.errors import EngineError
from prokos.engine.java import find_java
from prokos.engine.retry import RetryPolicy

if TYPE_CHECKING:
    from prokos.engine.distribution import Progress
    from prokos.engine.java import JavaRuntime

QUIET = "-Xlog:aot*=error,cds*=error"
"""The JVM warns of each of hundreds of classes it does not put into a cache."""

TRAINING_INSTANCES = 300
"""Process instances of a training run: enough for the hot methods to have profiles."""

TRAINING_TIMEOUT = 300.0
"""Seconds those instances may take; 5 to 20 on 2 cores."""

ASSEMBLY_TIMEOUT = 300.0
"""Seconds the JVM may take to write the cache when it ends; 10 to 25 on 2 cores."""

TRAINING_PROCESS = b"""<?xml version="1.0" encoding="UTF-8"?>
<bpmn:definitions xmlns:bpmn="http://www.omg.org/spec/BPMN/20100524/MODEL"
                  xmlns:zeebe="http://camunda.org/schema/zeebe/1.0" targetNamespace="http://prokos.io/training">
  <bpmn:process id="training" isExecutable="true">
    <bpmn:startEvent id="start"><bpmn:outgoing>toTask</bpmn:outgoing></bpmn:startEvent>
    <bpmn:sequenceFlow id="toTask" sourceRef="start" targetRef="task"/>
    <bpmn:serviceTask id="task">
      <bpmn:extensionElements>
        <zeebe:taskDefinition type="training"/>
        <zeebe:ioMapping><zeebe:input source="=number + 1" target="input"/></zeebe:ioMapping>
      </bpmn:extensionElements>
      <bpmn:incoming>toTask</bpmn:incoming><bpmn:outgoing>toGateway</bpmn:outgoing>
    </bpmn:serviceTask>
    <bpmn:sequenceFlow id="toGateway" sourceRef="task" targetRef="gateway"/>
    <bpmn:exclusiveGateway id="gateway" default="toEnd">
      <bpmn:incoming>toGateway</bpmn:incoming>
      <bpmn:outgoing>toEnd</bpmn:outgoing><bpmn:outgoing>toOtherEnd</bpmn:outgoing>
    </bpmn:exclusiveGateway>
    <bpmn:sequenceFlow id="toEnd" sourceRef="gateway" targetRef="end"/>
    <bpmn:sequenceFlow id="toOtherEnd" sourceRef="gateway" targetRef="otherEnd">
      <bpmn:conditionExpression>=number > 150</bpmn:conditionExpression>
    </bpmn:sequenceFlow>
    <bpmn:endEvent id="end"><bpmn:incoming>toEnd</bpmn:incoming></bpmn:endEvent>
    <bpmn:endEvent id="otherEnd"><bpmn:incoming>toOtherEnd</bpmn:incoming></bpmn:endEvent>
  </bpmn:process>
</bpmn:definitions>
"""

log = structlog.get_logger("prokos.engine")


def startup_cache_path(home: Path, java: JavaRuntime) -> Path | None:
    """Where the cache for this distribution and Java is, or would be; None when this Java makes none."""
    if java.major < AOT_JAVA:
        return None
    # The JVM compares the jars' times and sizes; the directory's own time stands for them here.
    ingredients = [str(home), str((home / "lib").stat().st_mtime_ns), str(java.executable), *build_jvm_options(java)]
    digest = hashlib.sha256("\0".join(ingredients).encode()).hexdigest()[:12]
    return cache_directory() / "engine" / f"startup-{home.name}-java{java.version}-{digest}.aot"


def startup_cache_options(home: Path, java: JavaRuntime) -> list[str]:
    """JVM options that use the cache, if it is there."""
    path = startup_cache_path(home, java)
    return [f"-XX:AOTCache={path}", QUIET] if path is not None and path.is_file() else []


async def ensure_startup_cache(
    version: str = DEFAULT_VERSION, *, progress: Progress = no_progress, idle: bool = False
) -> Path | None:
    """The start-up cache; it is made if it is not there yet, which takes half a minute to two minutes.

    Cancelling it leaves nothing behind.

    Args:
        version: Version of the engine.
        progress: Told of the distribution's download and of the steps of making the cache (count of instances).
        idle: Use only processor time that nobody else wants.

    Returns:
        The cache; None when this Java makes none, another process is making it, or making it failed: engines start
        without one, only slower.

    Raises:
        EngineSetupError: There is no distribution or no Java to be had.
    """
    home = await obtain_distribution(version, progress=progress)
    java = await asyncio.to_thread(find_java)
    path = startup_cache_path(home, java)
    if path is None or path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            return await _make(home, java, path, lock.fileno(), progress, idle=idle)
    except (OSError, TimeoutError, EngineSetupError, EngineError) as error:
        log.warning("the engine's start-up cache could not be made; starts take longer", reason=str(error))
        return None


async def _make(home: Path, java: JavaRuntime, path: Path, lock: int, progress: Progress, *, idle: bool) -> Path | None:
    prefix = f".{path.stem}-"
    for left in path.parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    try:
        made = work / path.name
        settings = EmbeddedSettings(data=work, log_file=work / "engine.log", keep_state=False)
        settings.temporary_directory.mkdir()
        ports = find_free_ports(settings.host)
        process = await BrokerProcess.spawn(
            build_command(settings, java, home, [f"-XX:AOTCacheOutput={made}", QUIET]),
            build_environment(settings, ports, work.name, os.environ),
            work,
            settings.log_file,
            keep_open=[lock],
            idle=idle,
        )
        grace = 0.0
        try:
            progress("preparing faster starts of the engine", 0, TRAINING_INSTANCES)
            await process.wait_ready(settings.host, ports, settings.ready_timeout)
            await _train(f"{settings.host}:{ports.gateway}", progress)
            grace = ASSEMBLY_TIMEOUT
        finally:
            await process.terminate(grace)
        if not made.is_file():
            log.warning("the engine's start-up cache could not be made; starts take longer")
            return None
        made.replace(path)
        return path
    finally:
        shutil.rmtree(work, ignore_errors=True)


async def _train(address: str, progress: Progress) -> None:
    """Have the engine do what engines do."""
    async with asyncio.timeout(TRAINING_TIMEOUT), EngineClient(Connection(address), RetryPolicy(patience=10)) as client:
        await client.deploy({"training.bpmn": TRAINING_PROCESS})
        for number in range(TRAINING_INSTANCES):
            await client.create_instance("training", {"number": number})
            for job in await client.activate_jobs("training", worker="training", limit=1, lease=60, wait=1):
                await client.complete_job(job.key, {"output": number})
            progress("preparing faster starts of the engine", number + 1, TRAINING_INSTANCES)
