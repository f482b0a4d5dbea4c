"""A real cluster for the tests of this directory: one that is up, or one that is brought up and taken down again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cluster.engine_release import CHART, Engine, image_values
from cluster.shop import NAMESPACE, OPERATOR, STARTING, Shop

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # for hack.cluster, which is no part of the package

COMMAND_TIMEOUT = 600.0
"""Seconds one command of kubectl or helm may take."""


class Cluster:
    """A cluster, through the programs that its users have."""

    def __init__(self, kubeconfig: Path, programs: Path) -> None:
        self.kubeconfig = kubeconfig
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        }

    def _run(self, *command: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            input=stdin,
            env=self._environment,
            timeout=COMMAND_TIMEOUT,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints; a failure fails the test."""
        return self._run("kubectl", *arguments, stdin=stdin).stdout

    def succeeds(self, *arguments: str) -> bool:
        """Whether kubectl succeeds."""
        return self._run("kubectl", *arguments, check=False).returncode == 0

    def refused(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl says when the API server refuses; that it does not fails the test."""
        done = self._run("kubectl", *arguments, stdin=stdin, check=False)
        assert done.returncode, f"kubectl {' '.join(arguments)} was not refused: {done.stdout}"
        return done.stderr

    def helm(self, *arguments: str) -> str:
        """What helm prints."""
        return self._run("helm", *arguments).stdout

    @contextlib.contextmanager
    def start(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        """Run one of the programs in the background; it is ended afterwards."""
        with subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.terminate()

    def program(self, name: str) -> str:
        """Where kubectl or helm is."""
        found = shutil.which(name, path=self._environment["PATH"])
        assert found, f"there is no {name}"
        return found

    @contextlib.contextmanager
    def namespace(self, *, security: str = "restricted") -> Iterator[str]:
        """A namespace of its own that enforces Pod Security; gone afterwards with all that is in it."""
        name = f"test-{uuid.uuid4().hex[:8]}"
        self.kubectl("create", "namespace", name)
        # Pods are refused until there is one.
        account = ("serviceaccount/default", "--namespace", name, "--timeout=120s")
        self.kubectl("wait", "--for=create", *account)
        self.kubectl("label", "namespace", name, f"pod-security.kubernetes.io/enforce={security}")
        try:
            yield name
        finally:
            self.delete_namespace(name)

    def delete_namespace(self, name: str) -> None:
        """Delete a namespace after what runs in it: with pods that take their time, it is looked at again very late."""
        here = ("--namespace", name)
        if self.succeeds("get", "crd", "prokoses.prokos.io"):
            ours = "prokoses,taskexecutors,processdefinitions,taskroutes"
            self.kubectl(*here, "delete", ours, "--all", "--timeout", "180s")
        self.kubectl(*here, "delete", "deployments,statefulsets,jobs,pods", "--all", "--timeout", "180s")
        self.kubectl("delete", "namespace", name, "--timeout", "180s", "--ignore-not-found")

    def apply(self, manifests: str) -> None:
        """Apply manifests in YAML."""
        self.kubectl("apply", "-f", "-", stdin=manifests)

    def load_images(self, *names: str) -> None:
        """Build images of ours, all by default, and make them known to the cluster."""
        from hack.cluster import images

        images.load(names)

    def engine_image(self) -> dict[str, object]:
        """The value `image` of the chart `camunda-engine` for this image."""
        from hack.cluster import demo

        return demo.engine_image()

    def image_values(self) -> list[str]:
        """Options of Helm that make the chart `prokos` use these images."""
        from hack.cluster import demo

        return demo.image_values()

    def example(self, directory: Path) -> str:
        """The manifests of an example, with the engine from the image that was built here."""
        from hack.cluster import demo

        return demo.with_engine_image(self.kubectl("kustomize", str(directory)))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster; one that was not up is taken down afterwards."""
    from hack.cluster import cluster as development
    from hack.cluster.binaries import binaries_directory, ensure_built, helm_build

    with development.borrowed() as node:
        ensure_built(helm_build())
        yield Cluster(node.kubeconfig, binaries_directory())


@pytest.fixture(scope="session")
def operator(cluster: Cluster) -> Iterator[Cluster]:
    """The operator by its charts; gone afterwards."""
    cluster.load_images()
    from hack.cluster import demo

    try:
        demo.install_operator(cluster.helm, cluster.kubectl)
        yield cluster
    finally:
        cluster.kubectl("delete", "prokoses", "--all", "--all-namespaces", "--timeout", "120s")
        cluster.helm("uninstall", "prokos", "--namespace", OPERATOR, "--wait")
        cluster.helm("uninstall", "prokos-crds")
        cluster.kubectl("delete", "crd", "-l", "app.kubernetes.io/part-of=prokos")
        cluster.kubectl("delete", "namespace", OPERATOR, "--timeout", "300s")


@pytest.fixture(scope="session")
def shop(operator: Cluster) -> Iterator[Shop]:
    """The order example, ready, in a namespace that admits restricted pods only."""
    # A run that was killed may have left it.
    operator.delete_namespace(NAMESPACE)
    operator.kubectl("create", "namespace", NAMESPACE)
    operator.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    system = Shop(operator)
    try:
        from hack.cluster import demo

        system.apply(demo.example_manifests(operator.kubectl))
        system.kubectl("wait", "--for=condition=Ready", "prokos/demo", f"--timeout={STARTING:g}s")
        yield system
    finally:
        operator.delete_namespace(NAMESPACE)


@pytest.fixture(scope="session")
def engine(cluster: Cluster) -> Iterator[Engine]:
    """An engine as a person installs it, in a namespace that admits restricted pods only."""
    cluster.load_images("engine")
    with cluster.namespace() as namespace:
        release = Engine(cluster, namespace)
        values = [*image_values(cluster), "--set", "persistence.size=1Gi"]
        cluster.helm("install", "engine", CHART, "--namespace", namespace, *values)
        release.until_ready()
        yield release
