"""The Kubernetes API as the rest of ProkOS uses it; the only package that speaks to the API server, beside kopf."""

from prokos.kube.client import KubeClient, Manifest, open_client
from prokos.kube.errors import KubeConflictError, KubeError

__all__ = ["KubeClient", "KubeConflictError", "KubeError", "Manifest", "open_client"]
