"""One cluster for developers and tests, of whichever sort this machine can have."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from hack.cluster import containers, kind, native
from hack.cluster.settings import KIND_VARIABLE, ClusterError, Node, cache_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEMPORARY = "temporary"
"""Marks a cluster that tests have started: the last of them takes it down."""


def is_native() -> bool:
    """Whether the cluster is processes of this machine: there is no usable Docker, or `PROKOS_CLUSTER=native`.

    Raises:
        ClusterError: `PROKOS_CLUSTER` is neither `native` nor `kind`.
    """
    chosen = os.environ.get(KIND_VARIABLE, "")
    if chosen not in {"", "native", "kind"}:
        raise ClusterError(f"{KIND_VARIABLE}={chosen!r} is neither 'native' nor 'kind'")
    return chosen == "native" if chosen else not kind.has_docker()


def up(*, temporary: bool) -> Node:
    """Bring the cluster up, or see that it is.

    Args:
        temporary: Let `down(only_temporary=True)` take it down, if it was not up before.

    Raises:
        ClusterError: It cannot be brought up.
    """
    node = Node.chosen()
    with _only_one():
        mark = node.directory / TEMPORARY
        was_there = is_up(node)
        native.up(node) if is_native() else kind.up(node)
        if not temporary:
            mark.unlink(missing_ok=True)
        elif not was_there:
            mark.touch()
    return node


def down(*, only_temporary: bool) -> None:
    """Take the cluster down.

    Args:
        only_temporary: Leave one that somebody has brought up to stay.

    Raises:
        ClusterError: Something of it cannot be ended or undone.
    """
    node = Node.chosen()
    with _only_one():
        if not only_temporary or (node.directory / TEMPORARY).exists():
            native.down(node) if is_native() else kind.down(node)


@contextlib.contextmanager
def borrowed() -> Iterator[Node]:
    """The cluster for as long as a session of tests lasts.

    One that is up stays up. One that a session has brought up is taken down by the last session that uses it.

    Raises:
        ClusterError: It cannot be brought up.
    """
    with _lock_file("users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield up(temporary=True)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            down(only_temporary=True)


def is_up(node: Node) -> bool:
    """Whether the cluster answers."""
    return native.is_up(node) if is_native() else kind.is_up()


def import_archive(node: Node, archive: Path) -> None:
    """Make the images of an archive known to the cluster.

    Raises:
        ClusterError: It holds none, or the cluster is not up.
    """
    if is_native():
        containers.import_archive(node, archive)
    else:
        kind.import_archive(archive)


@contextlib.contextmanager
def _only_one() -> Iterator[None]:
    """Let others who bring the cluster up or down wait."""
    with _lock_file("node").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock_file(name: str) -> Path:
    directory = cache_directory() / "cluster"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f".{name}.lock"
