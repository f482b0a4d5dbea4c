"""The order example on the cluster: operator by its charts, resources by kubectl, one order and what became of it."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import yaml
from hack.cluster import cluster, images
from hack.cluster.binaries import binaries_directory, ensure_built, helm_build
from hack.cluster.commands import run
from hack.cluster.progress import step
from hack.cluster.settings import REPOSITORY, Node

if TYPE_CHECKING:
    from collections.abc import Callable

CHARTS = REPOSITORY / "helm"
EXAMPLE = REPOSITORY / "examples" / "cluster"

OPERATOR_NAMESPACE = "prokos-system"
NAMESPACE = "shop"
SYSTEM = "demo"

RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
"""Label of a namespace that admits no other pods."""

READY_TIMEOUT = "600s"
"""How long the engine may take to start, and all resources to be ready."""

ORDER = {
    "orderId": "o-1",
    "customer": "ada",
    "items": [{"sku": "mug", "quantity": 2, "unitPrice": 20.0}],
}


def image_values() -> list[str]:
    """Options of Helm that make the operator's chart use the images that were built here."""
    tag = images.version()
    values = {"images.system.tag": tag, "images.worker.tag": tag, "images.pullPolicy": "Never"}
    return [argument for name, value in values.items() for argument in ("--set-string", f"{name}={value}")]


def engine_image() -> dict[str, object]:
    """The value `image` of the engine's chart that makes it use the image that was built here."""
    repository, _, tag = images.tag("engine").rpartition(":")
    return {"repository": repository, "tag": tag, "pullPolicy": "Never"}


def with_engine_image(manifests: str) -> str:
    """The manifests of an example, its engines from the image that was built here.

    Camunda's own image, which the example would take, cannot be pulled everywhere.
    """
    documents = [document for document in yaml.safe_load_all(manifests) if document]
    for document in documents:
        if document["kind"] == "ProkOS":
            helm = document["spec"]["engine"]["helm"]
            helm["values"] = {**helm.get("values", {}), "image": engine_image()}
    return yaml.safe_dump_all(documents, sort_keys=False)


def example_manifests(kubectl: Callable[..., str]) -> str:
    """`examples/cluster`, its engine from the image that was built here."""
    return with_engine_image(kubectl("kustomize", str(EXAMPLE)))


def install_operator(helm: Callable[..., str], kubectl: Callable[..., str], *values: str) -> None:
    """Install both charts as docs/operator.md says, with the images that were built here.

    Args:
        helm: Runs Helm with these arguments, and returns what it prints.
        kubectl: Likewise.
        values: Further options for the chart `prokos`.
    """
    install = ("upgrade", "--install", "--wait")
    helm(*install, "prokos-crds", str(CHARTS / "prokos-crds"))
    target = ("--namespace", OPERATOR_NAMESPACE, "--create-namespace")
    helm(*install, "prokos", str(CHARTS / "prokos"), *target, *image_values(), *values)
    kubectl("label", "--overwrite", "namespace", OPERATOR_NAMESPACE, RESTRICTED)


def show() -> None:
    """Bring everything up, place an order, and print the variables it ended with.

    Raises:
        ClusterError: Something of it failed; what was made until then stays, to be looked at.
    """
    node = cluster.up(temporary=False)
    ensure_built(helm_build())
    images.load()
    kubectl, helm = partial(_program, node, "kubectl"), partial(_program, node, "helm")
    shop = partial(kubectl, "--namespace", NAMESPACE)
    with step("installing the operator"):
        install_operator(helm, kubectl)
    with step("applying examples/cluster, until all of it is ready"):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
        kubectl("label", "--overwrite", "namespace", NAMESPACE, RESTRICTED)
        shop("apply", "-f", "-", stdin=example_manifests(kubectl))
        shop("rollout", "status", "deployment/shop", f"--timeout={READY_TIMEOUT}")
        shop("wait", "--for=condition=Ready", f"prokos/{SYSTEM}", f"--timeout={READY_TIMEOUT}")
    print(shop("get", "prokos-all"))
    with step("placing an order"):
        run_order = ("exec", "-i", f"deploy/{SYSTEM}-pdo", "--", "prokos", "run", "order", "--vars", "-")
        print(shop(*run_order, stdin=json.dumps(ORDER)))


def _program(node: Node, name: str, *arguments: str, stdin: str | None = None) -> str:
    return run(binaries_directory() / name, f"--kubeconfig={node.kubeconfig}", *arguments, stdin=stdin, timeout=1200)
