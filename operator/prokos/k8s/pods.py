"""Pods that Pod Security `restricted` admits, with what a resource says of them merged in. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prokos.kube import Manifest
    from prokos.resources.pods import PodSettings

USER = 65532
"""The user that our images run as; the number other images use for `nonroot`, too."""

DEFAULT_RESOURCES: Mapping[str, Mapping[str, str]] = {
    "requests": {"cpu": "50m", "memory": "128Mi"},
    "limits": {"memory": "512Mi"},
}
"""Without a CPU limit: one makes latency worse and protects nobody whose own request is honoured."""

TEMPORARY_SPACE = 256 * 2**20
"""Bytes that fit into /tmp; a pod that writes more is evicted."""


def pod_template(
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    service_account: str,
    settings: PodSettings,
    containers: Sequence[Manifest],
    volumes: Sequence[Manifest],
    grace: int,
    token: bool = False,
    temporary: int = TEMPORARY_SPACE,
) -> Manifest:
    """A pod template; `grace` is the seconds its containers have to end, `temporary` the bytes that fit into /tmp.

    Only pods that talk to the API server (`token`) get a service account token.
    """
    spec: Manifest = {
        "serviceAccountName": service_account,
        "automountServiceAccountToken": token,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": list(containers),
        "volumes": [*volumes, {"name": "tmp", "emptyDir": {"sizeLimit": str(temporary)}}],
    }
    optional: dict[str, Any] = {
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
        "runtimeClassName": settings.runtime_class_name,
        "priorityClassName": settings.priority_class_name,
        "nodeSelector": dict(settings.node_selector),
        "tolerations": list(settings.tolerations),
    }
    spec |= {name: value for name, value in optional.items() if value}
    return {
        # Ours come last: a label of the user's must not take a pod from its Deployment.
        "metadata": {
            "labels": {**settings.labels, **labels},
            "annotations": {**settings.annotations, **annotations},
        },
        "spec": spec,
    }


def container(
    name: str,
    image: str,
    command: Sequence[str],
    *,
    settings: PodSettings,
    environment: Sequence[Manifest],
    mounts: Sequence[Manifest],
    **more: Any,
) -> Manifest:
    """A container without privileges, whose root file system is read-only."""
    built: Manifest = {
        "name": name,
        "image": image,
        "command": list(command),
        "env": list(environment),
        "resources": resources(settings),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - an emptyDir of the pod's own
        **more,
    }
    if settings.image_pull_policy:
        built["imagePullPolicy"] = settings.image_pull_policy
    return built


def resources(settings: PodSettings) -> Manifest:
    """Requests and limits: what is said, over the defaults."""
    said = settings.resources
    return {
        "requests": {**DEFAULT_RESOURCES["requests"], **said.requests},
        "limits": {**DEFAULT_RESOURCES["limits"], **said.limits},
    }


def merged(settings: PodSettings, defaults: PodSettings) -> PodSettings:
    """What a resource says of its pods, over what the system says of all."""
    said = settings.model_fields_set
    changes: dict[str, Any] = {name: getattr(settings, name) for name in said}
    for name in ("node_selector", "labels", "annotations"):
        if name in said:
            changes[name] = {**getattr(defaults, name), **getattr(settings, name)}
    if "resources" in said:
        changes["resources"] = defaults.resources.model_copy(
            update={
                "requests": {**defaults.resources.requests, **settings.resources.requests},
                "limits": {**defaults.resources.limits, **settings.resources.limits},
            }
        )
    return defaults.model_copy(update=changes)
