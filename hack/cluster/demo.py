"""The order example on the cluster: operator by its charts, resources by kubectl, one order and what became of it."""

from __future__ import annotations

import json

import yaml
from hack.cluster import cluster, images
from hack.cluster.binaries import binaries_directory, ensure_built, helm_build
from hack.cluster.commands import run
from hack.cluster.progress import step
from hack.cluster.settings import REPOSITORY, Node

CHARTS = REPOSITORY / "helm"
EXAMPLE = REPOSITORY / "examples" / "cluster"

OPERATOR_NAMESPACE = "prokos-system"
NAMESPACE = "shop"
SYSTEM = "demo"

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


def show() -> None:
    """Bring everything up, place an order, and print the variables it ended with.

    Raises:
        ClusterError: Something of it failed; what was made until then stays, to be looked at.
    """
    node = cluster.up(temporary=False)
    ensure_built(helm_build())
    images.load()
    with step("installing the operator"):
        _helm(node, "prokos-crds", OPERATOR_NAMESPACE)
        _kubectl(node, "label", "--overwrite", "namespace", OPERATOR_NAMESPACE, *_RESTRICTED)
        _helm(node, "prokos", OPERATOR_NAMESPACE, *image_values())
    with step("applying examples/cluster, until all of it is ready"):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        _kubectl(node, "apply", "-f", "-", stdin=json.dumps(namespace))
        _kubectl(node, "label", "--overwrite", "namespace", NAMESPACE, *_RESTRICTED)
        manifests = with_engine_image(_kubectl(node, "kustomize", str(EXAMPLE)))
        _shop(node, "apply", "-f", "-", stdin=manifests)
        _shop(node, "rollout", "status", "deployment/shop", f"--timeout={READY_TIMEOUT}")
        _shop(node, "wait", "--for=condition=Ready", f"prokos/{SYSTEM}", f"--timeout={READY_TIMEOUT}")
    print(_shop(node, "get", "prokos-all"))
    with step("placing an order"):
        run_order = ("exec", "-i", f"deploy/{SYSTEM}-pdo", "--", "prokos", "run", "order", "--vars", "-")
        print(_shop(node, *run_order, stdin=json.dumps(ORDER)))


_RESTRICTED = ("pod-security.kubernetes.io/enforce=restricted",)


def _helm(node: Node, chart: str, namespace: str, *values: str) -> None:
    install = ("upgrade", "--install", chart, CHARTS / chart, "--namespace", namespace, "--create-namespace")
    run(binaries_directory() / "helm", f"--kubeconfig={node.kubeconfig}", *install, "--wait", *values)


def _shop(node: Node, *arguments: str, stdin: str | None = None) -> str:
    return _kubectl(node, "--namespace", NAMESPACE, *arguments, stdin=stdin)


def _kubectl(node: Node, *arguments: str, stdin: str | None = None) -> str:
    kubectl = binaries_directory() / "kubectl"
    return run(kubectl, f"--kubeconfig={node.kubeconfig}", *arguments, stdin=stdin, timeout=1200)
