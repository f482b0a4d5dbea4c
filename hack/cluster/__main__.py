"""The command line: `python -m hack.cluster up|down|status|env|build|images|load|demo|tests`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hack.cluster import cluster, demo, images, tests
from hack.cluster.binaries import (
    binaries_directory,
    ensure_built,
    helm_build,
    kubectl_build,
    kubernetes_build,
)
from hack.cluster.progress import say
from hack.cluster.settings import ClusterError, Node


def main() -> int:
    """Run one command; the exit code is 1 when it fails, with one line that says why."""
    arguments, more = _parser().parse_known_args()
    if more and arguments.command != "tests":
        _parser().error(f"unrecognized arguments: {' '.join(more)}")
    try:
        return tests.run_tests(more) if arguments.command == "tests" else _run(arguments)
    except ClusterError as error:
        print(f"hack.cluster: {error}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hack.cluster", description="The development cluster.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="bring the cluster up, or see that it is")
    up.add_argument("--temporary", action="store_true", help="let 'down --if-temporary' end it, if we start it")
    down = commands.add_parser("down", help="take the cluster down; what was built stays in the cache")
    down.add_argument("--if-temporary", action="store_true", help="only if it was brought up with --temporary")
    commands.add_parser("status", help="say whether it is up (exit code 0) or not (3)")
    commands.add_parser("env", help="print the shell commands that make kubectl and helm use it")
    commands.add_parser("build", help="build Kubernetes and Helm into the cache, and start nothing")
    images = commands.add_parser("images", help="build our images, and load them into the cluster if it is up")
    images.add_argument("name", nargs="*", help="which; all by default")
    commands.add_parser("demo", help="install the operator, apply examples/cluster and place an order")
    commands.add_parser("tests", help="build what is missing, and run tests/cluster; pytest's options follow")
    load = commands.add_parser("load", help="load the images of an archive into the cluster")
    load.add_argument("archive", type=Path)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    node = Node.chosen()
    match arguments.command:
        case "up":
            cluster.up(temporary=arguments.temporary)
            ensure_built(helm_build())
            say(f"the cluster is up; to use it from a shell:\n{_environment(node)}")
        case "down":
            cluster.down(only_temporary=arguments.if_temporary)
        case "status":
            there = cluster.is_up(node)
            print("up" if there else "down")
            return 0 if there else 3
        case "env":
            print(_environment(node))
        case "build":
            for build in (kubernetes_build(), kubectl_build(), helm_build()):
                ensure_built(build)
        case "images":
            images.load(arguments.name) if cluster.is_up(node) else images.build(arguments.name)
        case "demo":
            demo.show()
        case "load":
            cluster.import_archive(node, arguments.archive)
    return 0


def _environment(node: Node) -> str:
    return f"export KUBECONFIG={node.kubeconfig}\nexport PATH={binaries_directory()}:$PATH"


sys.exit(main())
