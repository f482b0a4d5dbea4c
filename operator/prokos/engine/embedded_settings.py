"""How the embedded engine is run: its settings, and the command line and environment made from them. Pure."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prokos.engine.distribution import DEFAULT_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from prokos.engine.java import JavaRuntime

HEAP = re.compile(r"[1-9]\d*[mg]")

AOT_JAVA = 25
"""The first Java that makes an ahead-of-time cache in one step (JEP 514), with method profiles in it (JEP 515)."""

MAX_PROCESSORS = 4
"""What the JVM is told at most: it sizes its pools by processors, and one partition keeps no more than these busy."""

FREE_DISK_MB = 256
"""Free disk in MB below which the engine executes nothing, and is not started. A snapshot and some log segments fit in
it. Camunda's default is 2 GB."""

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CAMUNDA_LICENSE_KEY")
"""Variables of our environment that the engine gets. Spring takes any variable for a setting (`SERVER_PORT`), so the
others stay out, and with them the secrets of executors."""


@dataclass(frozen=True, slots=True)
class EnginePorts:
    """TCP ports of one engine. The engine also takes the UDP port of the number `internal`."""

    gateway: int
    """gRPC."""
    rest: int
    management: int
    """Health and metrics."""
    command: int
    """From the gateway to the broker, both in one process here."""
    internal: int
    """From broker to broker."""


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """What to run, and where.

    Raises:
        ValueError: `heap` or `host` is not what it should be.
    """

    data: Path
    """Directory of the engine's state, made if it is missing. Only `broker/`, `tmp/` and the lock in it are ours."""
    log_file: Path
    """What the engine prints; appended to, and rotated at a start."""
    version: str = DEFAULT_VERSION
    heap: str = "512m"
    """Java heap, as in `-Xmx`. With 512m the broker is 455 MB resident after a start and 690 MB after 6,000 tasks (by
    `bin/broker` 500 and 815 MB); more than 150 MB of that are the mapped start-up cache."""
    keep_state: bool = True
    """False starts with an empty engine, leaves nothing behind, and writes without waiting for the disk."""
    host: str = "127.0.0.1"
    """IPv4 loopback address to listen on. The engine has no authentication, so it takes no other."""
    ports: EnginePorts | None = None
    """None takes free ones."""
    ready_timeout: float = 300.0
    """Seconds a start may take. Replaying a long log is part of it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """More of the engine's settings as it reads them, e.g. `ZEEBE_BROKER_DATA_SNAPSHOTPERIOD`. They override ours."""

    def __post_init__(self) -> None:
        if not HEAP.fullmatch(self.heap):
            raise ValueError(f"heap {self.heap!r} is no size; give one like 512m or 2g")
        try:
            loopback = ipaddress.IPv4Address(self.host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ValueError(f"host {self.host!r} is no IPv4 loopback address; the engine would be open to everyone")

    @property
    def broker_directory(self) -> Path:
        """The broker's own data."""
        return self.data / "broker"

    @property
    def temporary_directory(self) -> Path:
        """Libraries the JVM unpacks and the web server's files; a killed JVM would leave them in /tmp for good."""
        return self.data / "tmp"


def build_environment(
    settings: EmbeddedSettings, ports: EnginePorts, cluster: str, inherited: Mapping[str, str]
) -> dict[str, str]:
    """The engine's environment: one partition, no exporters, everything on one loopback address.

    Args:
        settings: How to run it.
        ports: Where it listens.
        cluster: Name of the cluster. Datagrams and connections that do not carry it are dropped unread. The broker
            binds the UDP socket of its membership protocol to all interfaces whatever it is told (8.6.0,
            `NettyUnicastService`), so the name should be one that nobody can guess.
        inherited: Our own environment, of which only a little is passed on.
    """
    return {
        **{name: inherited[name] for name in PASSED_ON if name in inherited},
        "ZEEBE_BROKER_NETWORK_HOST": settings.host,
        "ZEEBE_BROKER_NETWORK_ADVERTISEDHOST": settings.host,
        "ZEEBE_BROKER_NETWORK_COMMANDAPI_PORT": str(ports.command),
        "ZEEBE_BROKER_NETWORK_INTERNALAPI_PORT": str(ports.internal),
        "ZEEBE_BROKER_GATEWAY_NETWORK_HOST": settings.host,
        "ZEEBE_BROKER_GATEWAY_NETWORK_PORT": str(ports.gateway),
        "SERVER_ADDRESS": settings.host,
        "SERVER_PORT": str(ports.rest),
        "MANAGEMENT_SERVER_ADDRESS": settings.host,
        "MANAGEMENT_SERVER_PORT": str(ports.management),
        "ZEEBE_BROKER_CLUSTER_CLUSTERNAME": cluster,
        "ZEEBE_BROKER_CLUSTER_PARTITIONSCOUNT": "1",
        # Gateway and broker are one process. By default they cut their connection, and with it every command under
        # way, when the machine slept or was overloaded for 15 s.
        "ZEEBE_BROKER_NETWORK_HEARTBEATTIMEOUT": "10m",
        "ZEEBE_BROKER_DATA_DIRECTORY": str(settings.broker_directory),
        # The log grows by whole segments, written out when they are made: 128 MB take half a second of a start.
        "ZEEBE_BROKER_DATA_LOGSEGMENTSIZE": "16MB",
        "ZEEBE_BROKER_DATA_DISK_FREESPACE_PROCESSING": f"{FREE_DISK_MB}MB",
        "ZEEBE_BROKER_DATA_DISK_FREESPACE_REPLICATION": f"{FREE_DISK_MB // 2}MB",
        # Each start of a TDE leaves an entry that is deleted, and the next one steps over all of them that are still in
        # memory: small buffers, written out one by one, keep them few (docs/decisions/0020).
        "ZEEBE_BROKER_EXPERIMENTAL_ROCKSDB_MEMORYLIMIT": "64MB",
        "ZEEBE_BROKER_EXPERIMENTAL_ROCKSDB_MINWRITEBUFFERNUMBERTOMERGE": "1",
        # Beside the processing, they may miss the end of a job's lease for ever (docs/decisions/0021).
        "ZEEBE_BROKER_PROCESSING_ENABLEASYNCSCHEDULEDTASKS": "false",
        "ZEEBE_BROKER_CLUSTER_RAFT_FLUSH_ENABLED": str(settings.keep_state).lower(),
        "SERVER_TOMCAT_BASEDIR": str(settings.temporary_directory),
        "SERVER_TOMCAT_THREADS_MINSPARE": "2",
        "SPRING_MAIN_BANNERMODE": "off",
        # glibc gives every thread's memory a pool of its own, and the JVM has a hundred threads.
        "MALLOC_ARENA_MAX": "2",
        **settings.environment,
    }


def build_jvm_options(java: JavaRuntime, processors: int | None = None) -> list[str]:
    """The JVM options that an ahead-of-time cache depends on.

    Measured on 2 busy cores, CPU time of a start and, warm, per task of a one-task process: `bin/broker` 22 s and 6 to
    8 ms; these options 17 to 20 s and the same; with the start-up cache 8.7 s and the same. C1 alone
    (`TieredStopAtLevel=1`) starts in 12 s but then costs 9 ms per task, so it is not used. Spring's lazy
    initialization keeps the broker from becoming ready.
    """
    count = min(processors or os.cpu_count() or 1, MAX_PROCESSORS)
    options = [
        "-XX:+UseSerialGC",
        f"-XX:ActiveProcessorCount={count}",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        "-Dfile.encoding=UTF-8",
        # Else sockets for 127.0.0.1 are IPv6 ones, and what is bound to no address takes both families.
        "-Djava.net.preferIPv4Stack=true",
        "--enable-native-access=ALL-UNNAMED",
    ]
    if java.major >= 23:
        options.append("--sun-misc-unsafe-memory-access=allow")
    return options


def build_command(
    settings: EmbeddedSettings, java: JavaRuntime, home: Path, cache_options: Iterable[str] = ()
) -> list[str]:
    """The command line that starts the broker, as `bin/broker` would, but with java itself as the process.

    The class path names every jar and leaves out `config/`: both are what an ahead-of-time cache needs, the settings
    there are the defaults, and its logging writes into the distribution.

    Args:
        settings: How to run it.
        java: The Java to run it with.
        home: The distribution's directory.
        cache_options: JVM options that use or make an ahead-of-time cache.
    """
    jars = sorted(str(path) for path in (home / "lib").glob("*.jar"))
    return [
        str(java.executable),
        *build_jvm_options(java),
        *cache_options,
        f"-Xmx{settings.heap}",
        f"-Djava.io.tmpdir={settings.temporary_directory}",
        f"-XX:ErrorFile={settings.log_file.parent / 'engine-crash-%p.log'}",
        f"-Dbasedir={settings.data}",
        "-classpath",
        os.pathsep.join(jars),
        main_class((home / "bin" / "broker").read_text()),
    ]


def main_class(script: str) -> str:
    """The class that `bin/broker` starts; it has moved between versions."""
    match = re.search(r"^\s*([\w.]+\.StandaloneBroker)\b", script, re.MULTILINE)
    return match[1] if match else "io.camunda.application.StandaloneBroker"


_ANALYSIS = "APPLICATION FAILED TO START"
_NOISE = re.compile(r"^\s*(at |\.\.\. \d+|\*+$|WARNING: |$)|\[warning\]\[")
_TELLING = re.compile(r"Caused by: |\b(ERROR|FATAL|FAILED|\w*Exception|\w*Error)\b")


def last_meaningful_lines(text: str, count: int = 5) -> list[str]:
    """What a log says of why a process ended.

    That is Spring's own analysis if there is one, else the last errors without stack frames, else the last lines.
    """
    _, analysed, analysis = text.rpartition(_ANALYSIS)
    if analysed:
        return [line.strip() for line in analysis.splitlines() if line.strip(" *")][:count]
    lines = list(dict.fromkeys(line.strip()[:300] for line in text.splitlines() if not _NOISE.search(line)))
    telling = [line for line in lines if _TELLING.search(line) and " WARN " not in line]
    return telling[-count:] if telling and len(lines) > count else lines[-count:]
