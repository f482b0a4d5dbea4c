"""The Helm program as a few verbs. The only module that runs it; values reach it by a pipe and are never written down.

Nothing here waits for pods: `upgrade` and `rollback` return when the API server has taken the objects, so an operator
that is stopped seldom interrupts one. Whether the engine gets ready is looked at by `prokos.k8s.engine_release`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from prokos.engine.tether import tethered
from prokos.k8s.helm_errors import HelmError, explain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from prokos.k8s.chart import Chart

__all__ = ["Content", "Helm", "HelmError", "Revision"]

INHERITED = re.compile(
    r"PATH|LANG|LC_ALL|TZ|SSL_CERT_FILE|SSL_CERT_DIR|KUBECONFIG|KUBERNETES_SERVICE_\w+|HELM_REGISTRY_CONFIG"
    r"|(HTTPS?|NO)_PROXY|(https?|no)_proxy"
)
"""Variables that Helm gets of the operator's: how to reach cluster and repositories, and nothing secret."""

HISTORY = 10
"""Revisions Helm keeps of a release."""

READ_LIMIT = 60.0
"""Seconds a read may take."""

MARGIN = 60.0
"""Seconds beyond its own time-out after which a Helm that writes is ended."""

GRACE = 10.0
"""Seconds a Helm that is ended has to say in the release that it was."""

MANIFEST = "\n--- manifest\n"
DESCRIBE = (
    '{"chart": {{printf "%q" .Release.Chart.Metadata.Name}}, "version": {{printf "%q" .Release.Chart.Metadata.Version}}'
    ', "labels": {"": ""{{range $key, $value := .Release.Labels}}, {{printf "%q: %q" $key $value}}{{end}}}}'
    f"{MANIFEST}{{{{.Release.Manifest}}}}"
)
"""Template for `helm get all`: what no other command prints as JSON."""

log = structlog.get_logger("prokos.k8s")


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of a release, as `helm history` tells it.

    Attributes:
        status: `deployed`, `superseded`, `failed`, `pending-install`, `uninstalling`...
        chart: Name and version of the chart, `camunda-platform-14.8.4`.
    """

    number: int
    status: str
    updated: datetime
    chart: str
    description: str


@dataclass(frozen=True, slots=True)
class Content:
    """What a revision consists of."""

    chart: str
    version: str
    labels: Mapping[str, str]
    manifest: str


class Helm:
    """Runs Helm with the rights of this process.

    Args:
        program: The program; looked up in `PATH`.
        environ: Where the variables come from that it gets.
        directory: Where it may write caches; by default below the directory for temporary files.
    """

    def __init__(
        self, program: str = "helm", environ: Mapping[str, str] = os.environ, directory: Path | None = None
    ) -> None:
        self._program = program
        self._environ = environ
        self._directory = directory or Path(tempfile.gettempdir()) / f"prokos-helm-{os.getuid()}"

    async def history(self, namespace: str, release: str) -> list[Revision]:
        """The revisions of a release, oldest first; none when there is no such release.

        Raises:
            HelmError: The cluster does not answer, or refuses.
        """
        try:
            output = await self._run(["history", release, "--max", str(HISTORY), "-o", "json"], namespace)
        except HelmError as error:
            if error.reason == "NotFound":
                return []
            raise
        return [
            Revision(
                number=item["revision"],
                status=item["status"],
                updated=datetime.fromisoformat(item["updated"]),
                chart=item["chart"],
                description=item["description"],
            )
            for item in json.loads(output)
        ]

    async def content(self, namespace: str, release: str, revision: int) -> Content:
        """Chart, labels and objects of a revision.

        Raises:
            HelmError: There is no such revision, or the cluster does not answer.
        """
        command = ["get", "all", release, "--revision", str(revision), "--template", DESCRIBE]
        described, _, manifest = (await self._run(command, namespace)).partition(MANIFEST)
        said = json.loads(described)
        said["labels"].pop("")
        return Content(said["chart"], said["version"], said["labels"], manifest)

    async def values(self, namespace: str, release: str) -> dict[str, Any]:
        """All values of the newest revision, those of the chart included."""
        found: dict[str, Any] = json.loads(
            await self._run(["get", "values", release, "--all", "-o", "json"], namespace)
        )
        return found

    async def upgrade(
        self,
        namespace: str,
        release: str,
        chart: Chart,
        values: Mapping[str, Any],
        *,
        labels: Mapping[str, str],
        timeout: timedelta,
    ) -> None:
        """Install or upgrade a release. Its values are these alone; those of its past are forgotten.

        Args:
            namespace: Where.
            release: Its name.
            chart: What to install.
            values: Laid over those of the chart.
            labels: Kept with the revision.
            timeout: How long the chart's hooks may take.

        Raises:
            HelmError: It failed. A revision of status `failed` may be left, which says why, too.
        """
        command = ["upgrade", release, chart.reference, "--install", "--reset-values", "--hide-notes", "--values", "-"]
        command += ["--labels", ",".join(f"{key}={value}" for key, value in labels.items())]
        command += ["--history-max", str(HISTORY)]
        if chart.repository is not None:
            command += ["--repo", chart.repository]
        if chart.version is not None:
            command += ["--version", chart.version]
        await self._write(command, namespace, timeout, values)

    async def rollback(self, namespace: str, release: str, revision: int, timeout: timedelta) -> None:
        """Make the objects of a release what they were at a revision; this is a revision again.

        Raises:
            HelmError: It failed.
        """
        command = ["rollback", release, str(revision), "--history-max", str(HISTORY)]
        await self._write(command, namespace, timeout)

    async def uninstall(self, namespace: str, release: str, timeout: timedelta) -> None:
        """Delete the objects of a release and its history; volumes that its pods claimed stay.

        Raises:
            HelmError: It failed; one that is not there is as good as uninstalled.
        """
        try:
            await self._write(["uninstall", release], namespace, timeout)
        except HelmError as error:
            if error.reason != "NotFound":
                raise

    async def _write(
        self, command: Sequence[str], namespace: str, timeout: timedelta, values: Mapping[str, Any] | None = None
    ) -> None:
        seconds = timeout.total_seconds()
        arguments = [*command, "--timeout", f"{max(1, round(seconds))}s"]
        await self._run(arguments, namespace, limit=seconds + MARGIN, values=values)

    async def _run(
        self,
        command: Sequence[str],
        namespace: str,
        *,
        limit: float = READ_LIMIT,
        values: Mapping[str, Any] | None = None,
    ) -> str:
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *tethered([self._found(), *command, "--namespace", namespace]),
            env=self._environment(),
            cwd=self._directory,
            stdin=asyncio.subprocess.DEVNULL if values is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(limit):
                output, errors = await process.communicate(None if values is None else json.dumps(values).encode())
        except TimeoutError as error:
            raise HelmError("TimedOut", f"helm {command[0]} took longer than {limit:.0f} s and was ended") from error
        finally:
            await _end(process)
        seconds = round(time.monotonic() - started, 2)
        level = log.debug if command[0] in {"history", "get"} else log.info
        level(
            "helm", command=command[0], release=command[1], namespace=namespace, code=process.returncode, took=seconds
        )
        if process.returncode:
            raise explain(command[0], errors.decode(errors="replace"), values or {})
        return output.decode()

    def _found(self) -> str:
        path = shutil.which(self._program, path=self._environ.get("PATH"))
        if path is None:
            raise HelmError(
                "HelmMissing", f"the program {self._program!r} is not there; the operator's image brings it"
            )
        return path

    def _environment(self) -> dict[str, str]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = {name: value for name, value in self._environ.items() if INHERITED.fullmatch(name)}
        homes = {f"HELM_{kind}_HOME": str(self._directory / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        return {**environment, **homes, "HOME": str(self._directory)}


async def _end(process: asyncio.subprocess.Process) -> None:
    """Make sure that nothing is left of a Helm: who waits for it may be cancelled, and must leave no child."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    leaving = asyncio.ensure_future(process.communicate())
    try:
        await asyncio.wait([leaving], timeout=GRACE)
    finally:
        if not leaving.done():
            # What Helm started itself goes with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    await leaving
