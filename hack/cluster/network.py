"""What the node changes in this machine's network and kernel settings, and how that is undone."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from hack.cluster.commands import run, succeeds
from hack.cluster.settings import NODE_IP, POD_CIDR, SERVICE_CIDR, ClusterError

if TYPE_CHECKING:
    from hack.cluster.settings import Node

RULE_COMMENT = "prokos-node"
"""Marks our iptables rules."""

CHANGED_SYSCTLS = (
    "net/ipv4/ip_forward",
    # These the kubelet and kube-proxy set without being asked.
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/vs/conntrack",
)

KUBERNETES_CHAIN = re.compile(r"^:(KUBE-\S+) ", re.MULTILINE)
KUBERNETES_JUMP = re.compile(r"^-A (?!KUBE-)(.* -j KUBE-\S+.*)$", re.MULTILINE)


def set_up(node: Node, *, egress: bool) -> None:
    """Give the node its address, and let its pods reach each other.

    Args:
        node: Whose network it is.
        egress: Whether pods may also reach addresses outside of the cluster.

    Raises:
        ClusterError: The machine uses one of the node's addresses for something else.
    """
    _save_sysctls(node)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    if not _has_address():
        _check_free()
        run("ip", "address", "add", f"{NODE_IP}/32", "dev", "lo")
    _remove_rules()
    for table, rule in _rules(egress=egress):
        run("iptables", "--wait", "--table", table, "--insert", *rule)


def tear_down(node: Node) -> None:
    """Undo what we, the kubelet and kube-proxy have changed."""
    _remove_rules()
    for program in ("iptables", "ip6tables"):
        for table in ("filter", "nat", "mangle"):
            with contextlib.suppress(ClusterError):
                _remove_kubernetes_chains(program, table)
    if _has_address():
        run("ip", "address", "del", f"{NODE_IP}/32", "dev", "lo")
    _restore_sysctls(node)


def _rules(*, egress: bool) -> list[tuple[str, list[str]]]:
    """Our rules with their tables. They are inserted in this order, so the last one is the first to be asked."""
    marked = ["-m", "comment", "--comment", RULE_COMMENT]
    if egress:
        outside = [
            ("nat", ["POSTROUTING", "-s", POD_CIDR, "!", "-d", POD_CIDR, *marked, "-j", "MASQUERADE"]),
            ("filter", ["FORWARD", "-s", POD_CIDR, *marked, "-j", "ACCEPT"]),
            ("filter", ["FORWARD", "-d", POD_CIDR, *marked, "-j", "ACCEPT"]),
        ]
    else:
        outside = [("filter", ["FORWARD", "-s", POD_CIDR, *marked, "-j", "REJECT"])]
    # Other programs, Docker among them, make the chain's policy DROP.
    return [*outside, ("filter", ["FORWARD", "-s", POD_CIDR, "-d", POD_CIDR, *marked, "-j", "ACCEPT"])]


def _remove_rules() -> None:
    for egress in (False, True):
        for table, rule in _rules(egress=egress):
            while succeeds("iptables", "--wait", "--table", table, "--delete", *rule):
                pass


def _remove_kubernetes_chains(program: str, table: str) -> None:
    """Remove the chains of the kubelet and kube-proxy, and the rules that lead there; all others stay as they are."""
    saved = run(f"{program}-save", "--table", table)
    chains = KUBERNETES_CHAIN.findall(saved)
    if not chains:
        return
    lines = [f"*{table}"]
    lines += [f"-D {jump}" for jump in KUBERNETES_JUMP.findall(saved)]
    lines += [f"-F {chain}" for chain in chains]
    lines += [f"-X {chain}" for chain in chains]
    run(f"{program}-restore", "--wait", "--noflush", stdin="\n".join([*lines, "COMMIT", ""]))


def _has_address() -> bool:
    addresses = json.loads(run("ip", "-json", "address", "show", "dev", "lo"))
    return any(address["local"] == NODE_IP for address in addresses[0]["addr_info"])


def _check_free() -> None:
    for network in (f"{NODE_IP}/32", POD_CIDR, SERVICE_CIDR):
        route = run("ip", "route", "show", "root", network).strip()
        if route:
            raise ClusterError(
                f"the node's network {network} is in use on this machine ({route.splitlines()[0].strip()}); "
                "end what uses it, or change the addresses in hack/cluster/settings.py"
            )


def _save_sysctls(node: Node) -> None:
    if node.saved_sysctls.exists():
        return
    paths = {name: Path("/proc/sys") / name for name in CHANGED_SYSCTLS}
    saved = {name: path.read_text().strip() for name, path in paths.items() if path.exists()}
    node.saved_sysctls.write_text(json.dumps(saved))


def _restore_sysctls(node: Node) -> None:
    if not node.saved_sysctls.exists():
        return
    for name, value in json.loads(node.saved_sysctls.read_text()).items():
        (Path("/proc/sys") / name).write_text(value)
