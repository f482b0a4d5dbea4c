"""What database servers of tests have in common. As root they run as another user."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil
import psycopg
import pymysql
import trustme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = "nobody"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait_for(what: str, ready: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := ready()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)
    return result


class Certificates:
    """An authority, and a server's certificate for `localhost`."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        server = authority.issue_cert("localhost")  # and not for its address
        self.authority = authority.cert_pem.bytes().decode()
        client = authority.issue_cert("mutual@example.com", common_name="mutual")
        self.client, self.client_key = (
            client.cert_chain_pems[0].bytes().decode(),
            client.private_key_pem.bytes().decode(),
        )
        self.files = {name: directory / f"{name}.pem" for name in ("authority", "certificate", "key")}
        self.files["authority"].write_text(self.authority)
        self.files["certificate"].write_bytes(server.cert_chain_pems[0].bytes())
        self.files["key"].write_bytes(server.private_key_pem.bytes())
        for file in self.files.values():
            file.chmod(0o600)
            give_away(file)


class Server(ABC):
    """A database server in a directory of its own."""

    name: str

    @classmethod
    @contextlib.contextmanager
    def running(cls, *arguments: Any) -> Iterator[Self]:
        # Short: the path of a Unix socket has 107 characters.
        directory = Path(tempfile.mkdtemp(prefix="sql-", dir="/tmp"))
        directory.chmod(0o755)
        try:
            with contextlib.closing(cls(directory, *arguments)) as started:
                yield started
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @property
    @abstractmethod
    def url(self) -> str:
        """Over a Unix socket, as the administrator."""

    @abstractmethod
    def start(self) -> None:
        """Start it again."""

    @abstractmethod
    def kill(self) -> None:
        """Kill it, so that it can save nothing."""

    @abstractmethod
    def close(self) -> None:
        """End it for good."""

    @abstractmethod
    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask it something, past the executor."""

    @abstractmethod
    def sleeping(self) -> int:
        """How many statements sleep at this moment."""

    def wait_until(self, statement: str, seconds: float = 120) -> list[tuple[Any, ...]]:
        """Wait until a query has rows."""
        return wait_for(statement, lambda: self.query(statement), seconds)

    def wait_until_sleeping(self, count: int) -> None:
        wait_for(f"{count} sleeping statements", lambda: self.sleeping() == count)


def ask_postgresql(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


def answers(server: Server, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the server ended"
    with contextlib.suppress(psycopg.OperationalError, pymysql.OperationalError):
        server.query("SELECT 1")
        return True
    return False


def run_server(
    command: list[Any], environment: dict[str, str], directory: Path, *, drop: bool = True
) -> subprocess.Popen[bytes]:
    with (directory / "log").open("ab") as log:
        user = unprivileged() if drop else {}
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=directory, **user)


def unprivileged() -> dict[str, Any]:
    return {"user": NOBODY, "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


def give_away(path: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(path, NOBODY)


def kill_tree(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(family, timeout=30)
