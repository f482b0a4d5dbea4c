"""Pods that tests start by themselves."""

from __future__ import annotations

import json
from typing import Any


def pod(name: str, *command: str, volume: str = "", **security: Any) -> str:
    """A pod as restricted namespaces admit it, that runs Python; `volume` is the claim that it has at /data."""
    from hack.cluster import images

    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": volume}}] if volume else []
    container = {
        "name": "main",
        "image": images.tag("worker"),
        "imagePullPolicy": "Never",
        "command": ["python", *command],
        "workingDir": "/tmp",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            **security,
        },
        "volumeMounts": [{"name": "data", "mountPath": "/data"}] if volume else [],
    }
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 4000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    metadata = {"name": name, "labels": {"app": name}}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
