"""Asks cyclonus, an evaluator of NetworkPolicies that knows nothing of ours, which connections policies let through."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hack.cluster.binaries import cyclonus_build, ensure_built

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VERDICT = re.compile(r"is allowed\?\s*\|\s*(true|false)\s*\|", re.IGNORECASE)


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod, or with no namespace an address outside of the cluster."""

    name: str
    address: str
    namespace: str | None = None
    labels: dict[str, str] = field(default_factory=dict, hash=False)

    def described(self) -> dict[str, Any]:
        """As cyclonus reads it."""
        if self.namespace is None:
            return {"IP": self.address}
        namespace_labels = {"kubernetes.io/metadata.name": self.namespace}
        pod = {"PodLabels": self.labels, "NamespaceLabels": namespace_labels, "Namespace": self.namespace}
        return {"Internal": pod, "IP": self.address}


@dataclass(frozen=True)
class Connection:
    """A connection that somebody may try to make."""

    source: Peer
    destination: Peer
    port: int
    protocol: str = "TCP"


def allowed(policies: Sequence[dict[str, Any]], tried: Sequence[Connection], directory: Path) -> set[Connection]:
    """Those connections that the policies of both ends let through.

    Raises:
        ClusterError: cyclonus cannot be built.
        CalledProcessError: It refuses a policy.
    """
    policy_file, traffic_file = directory / "policies.json", directory / "traffic.json"
    policy_file.write_text(json.dumps({"apiVersion": "v1", "kind": "NetworkPolicyList", "items": list(policies)}))
    traffic = [
        {
            "Source": one.source.described(),
            "Destination": one.destination.described(),
            "ResolvedPort": one.port,
            "Protocol": one.protocol,
        }
        for one in tried
    ]
    traffic_file.write_text(json.dumps(traffic))
    program = ensure_built(cyclonus_build()) / "cyclonus"
    command = [program, "analyze", "--mode", "query-traffic", "--policy-path", policy_file]
    asked = subprocess.run([*command, "--traffic-path", traffic_file], capture_output=True, text=True, check=True)
    verdicts = [verdict.lower() == "true" for verdict in VERDICT.findall(asked.stdout)]
    assert len(verdicts) == len(tried), asked.stderr or asked.stdout[-2000:]
    return {one for one, verdict in zip(tried, verdicts, strict=True) if verdict}
