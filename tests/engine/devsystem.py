"""A real `prokos dev` as a child process, used the way a person uses it: through the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

import psutil

PROKOS = [sys.executable, "-m", "prokos"]

START_TIMEOUT = 360.0
"""Seconds a start may take at most: longer than the engine is given. It takes 10 to 20 on two processors of its own;
one that fails is not waited for."""
STOP_TIMEOUT = 60.0

PATIENCE = 120.0
"""Seconds for what a system does by itself: wait for a lease, start a process, also on a busy machine."""


class DevSystem:
    """`prokos dev` on some manifests."""

    def __init__(
        self,
        directory: Path,
        manifests: list[Path],
        *,
        engine: str | None = None,
        arguments: list[str] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Args: where state and output go; what to run; an engine that runs already, else it starts its own."""
        self.state = directory / "state"
        self.output_file = directory / "dev.out"
        self.manifests = manifests
        self.arguments = arguments or []
        self.environment = {**os.environ, **(environment or {}), "PROKOS_STATE": str(self.state)}
        self.environment.pop("PROKOS_ENGINE_ADDRESS", None)
        if engine is not None:
            system = directory / "external-engine.yaml"
            document = {
                "apiVersion": "prokos.io/v1alpha1",
                "kind": "ProkOS",
                "metadata": {"name": "test"},
                "spec": {"engine": {"external": {"address": engine}}},
            }
            system.write_text(json.dumps(document))
            self.manifests = [*manifests, system]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """What `prokos dev` has printed so far."""
        return self.output_file.read_text(errors="replace") if self.output_file.exists() else ""

    def start(self, *, wait: bool = True) -> Self:
        """Start it, and wait until it says that it is ready."""
        with self.output_file.open("wb") as output:
            self._process = subprocess.Popen(
                [*PROKOS, "dev", *map(str, self.manifests), *self.arguments],
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        if wait:
            try:
                self.wait_for("\nready: ", START_TIMEOUT)
            except AssertionError:
                # Who fails to start it does not get to stop it.
                self.stop()
                raise
        return self

    def wait_for(self, text: str, timeout: float = PATIENCE) -> None:
        """Wait until it has printed `text`."""
        wait_until(
            lambda: text in "\n" + self.output or self._ended(),
            timeout=timeout,
            describe=lambda: f"`prokos dev` did not say {text!r}:\n{self.output}\n{self.logs()}",
        )
        assert text in "\n" + self.output, f"`prokos dev` ended:\n{self.output}\n{self.logs()}"

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Interrupt it and wait for its end; returns its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(how)
        try:
            return self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"`prokos dev` does not end:\n{self.output}\n{self.logs()}") from None

    def family(self) -> list[psutil.Process]:
        """Its process and all its descendants."""
        main = psutil.Process(self.pid)
        return [main, *main.children(recursive=True)]

    def run(self, *arguments: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command of `prokos` beside it."""
        done = subprocess.run(
            [*PROKOS, *arguments], env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{arguments} failed with {done.returncode}:\n{done.stderr}\n{self.logs()}")
        return done

    def json(self, *arguments: str) -> Any:
        """Run a command that prints JSON."""
        return json.loads(self.run(*arguments, "--output", "json").stdout)

    def run_process(
        self, process: str, variables: dict[str, Any] | None = None, *, timeout: float = 120
    ) -> dict[str, Any]:
        """Run a process to its end; returns its variables."""
        arguments = [f"--var={name}={json.dumps(value)}" for name, value in (variables or {}).items()]
        # The command gives up first, and says why.
        limits = ("--timeout", f"{timeout - 10:g}", "--output", "json")
        result: dict[str, Any] = json.loads(self.run("run", process, *arguments, *limits, timeout=timeout).stdout)
        return dict(result["variables"])

    def wait_for_process(self, process: str, timeout: float = PATIENCE) -> None:
        """Wait until a process is registered."""
        wait_until(
            lambda: any(known["process"] == process for known in self.json("status")["processes"]),
            timeout=timeout,
            describe=lambda: f"{process} is not registered\n{self.output}\n{self.logs()}",
        )

    def tasks(self, **having: Any) -> list[dict[str, Any]]:
        """The tasks the PDO remembers, oldest first, that have these fields."""
        found = self.pdo("/tasks?limit=1000")
        return [task for task in reversed(found) if all(task[name] == value for name, value in having.items())]

    @property
    def runtime(self) -> dict[str, Any]:
        """Where its parts listen."""
        found: dict[str, Any] = json.loads((self.state / "run" / "runtime.json").read_text())
        return found

    def pdo(self, path: str) -> Any:
        """Ask the PDO's status API."""
        with urllib.request.urlopen(f"http://{self.runtime['pdo']}{path}", timeout=10) as response:
            return json.loads(response.read())

    def wait_for_task(self, timeout: float = PATIENCE, **having: Any) -> dict[str, Any]:
        """Wait until there is a task with these fields."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = self.tasks(**having)
            return bool(found)

        wait_until(
            look,
            timeout=timeout,
            describe=lambda: f"no task with {having}; there are {self.tasks()}\n{self.logs()}",
        )
        return found[0]

    def logs(self) -> str:
        """The ends of all logs but the engine's, for a failure's message."""
        files = sorted((self.state / "logs").glob("*.log"))
        return "\n".join(
            f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files if file.stem != "engine"
        )


def wait_until(predicate: Any, *, timeout: float, describe: Any) -> None:
    """Look again and again until something is so; fail with a description when it does not become so."""
    deadline = time.monotonic() + timeout
    while True:
        failure: Exception | None = None
        try:
            if predicate():
                return
        except (AssertionError, OSError) as error:  # a part that did not answer; the next look may find it well
            failure = error
        if time.monotonic() > deadline:
            raise AssertionError(describe()) from failure
        time.sleep(0.1)
