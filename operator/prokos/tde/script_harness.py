"""Starts scripts for the sandbox, outside the worker: one server, and one guardian per running script.

The worker starts this file once, isolated (`python -I -B script_harness.py FD`), and asks it through the Unix
socket FD for each script. Because it is a small process with one thread it may fork, which costs about a
millisecond; a new interpreter costs 15 to 40. It uses the standard library alone and holds nothing of the worker.

    worker --socket--> server --fork--> guardian --fork--> the script or command

The guardian lives as long as its script. It is a child subreaper, so whatever the script starts stays below it,
also a process that detaches into a session of its own. It ends them all when the script is over, when the worker
shuts its end of the control socket, and when the worker dies, which closes that socket too.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
EX_CONFIG = 78
"""Exit code of a failure that no further attempt can mend; from sysexits.h."""
KILL_SECONDS = 5.0
"""How long processes may take to go after SIGKILL; only uninterruptible I/O takes longer."""

_libc = ctypes.CDLL(None, use_errno=True)


def _beside(name: str) -> Any:
    """Import a file of this directory, which an isolated interpreter does not search."""
    spec = importlib.util.spec_from_file_location(name, f"{__file__.rpartition('/')[0]}/{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_run_python: Callable[[str], NoReturn] = _beside("script_python").run
"""Imported before the first fork, so that it costs once."""


def serve(server: socket.socket) -> None:
    """Fork a guardian for every control socket that arrives, until the worker closes its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the guardians
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold secrets and fill the disk
    gc.freeze()  # a collection in a child would copy every page it shares with this process
    while True:
        message, descriptors, _, _ = socket.recv_fds(server, 1, 1)
        if not message:
            return
        control = socket.socket(fileno=descriptors[0])
        if fork(control) == 0:
            server.close()
            guard(control)
        control.close()


def fork(control: socket.socket) -> int | None:
    """Fork. None when no more processes are allowed now: this task fails, a later one may work."""
    try:
        return os.fork()
    except OSError as error:
        with contextlib.suppress(OSError):
            control.sendall(f" error cannot start a process: {error.strerror}".encode())
        return None


def guard(control: socket.socket) -> NoReturn:
    """Start what the control socket asks for, see it through and leave nothing of it behind."""
    wakeup, wake = os.pipe()
    for end in (wakeup, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    control.sendall(b"+")
    _, stdio, _, _ = socket.recv_fds(control, 1, 3)
    request = json.loads(_receive(control, int.from_bytes(_receive(control, 4), "big")))
    guardian = os.getpid()
    child = fork(control)
    if child is None:
        os._exit(0)
    if child == 0:
        become(request, stdio, guardian)
    for descriptor in stdio:
        os.close(descriptor)
    family = Family(child, control, wakeup)
    family.see_through(request["grace"])
    try:
        control.sendall(f"exit {family.status}".encode())
    except OSError:  # the worker is dead, so nobody else tidies up
        shutil.rmtree(request["scratch"], ignore_errors=True)
    os._exit(0)


def _receive(control: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        more = control.recv(size - len(received))
        if not more:  # the worker gave up before it had said what to run
            os._exit(0)
        received += more
    return received


class Family:
    """The script and everything it started: the descendants of this process."""

    def __init__(self, child: int, control: socket.socket, wakeup: int) -> None:
        self.child = child
        self.status: int | None = None
        self.control = control
        self.wakeup = wakeup
        self.poller = select.poll()
        self.poller.register(wakeup, select.POLLIN)

    def see_through(self, grace: float) -> None:
        """Wait for the script's end or the worker's word, then end whatever is left."""
        self.poller.register(self.control, select.POLLIN)  # the worker says no more, so readable means closed
        alive = self.alive()
        while self.status is None:
            if self.control.fileno() in self.wait(None):
                self.poller.unregister(self.control)
                self.send(signal.SIGTERM)
                alive = not self.gone_within(grace)
                break
            alive = self.alive()
        deadline = time.monotonic() + KILL_SECONDS
        while alive and time.monotonic() < deadline:
            self.send(signal.SIGKILL)
            alive = not self.gone_within(0.1)

    def wait(self, seconds: float | None) -> set[int]:
        """Wait until a process ends or the worker closes; returns the descriptors that said so."""
        ready = {descriptor for descriptor, _ in self.poller.poll(None if seconds is None else seconds * 1000)}
        if self.wakeup in ready:
            os.read(self.wakeup, 512)
        return ready

    def alive(self) -> bool:
        """Collect what has ended. True while anything is left: orphans become children of this process."""
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if ended == 0:
                return True
            if ended == self.child:
                self.status = status

    def gone_within(self, seconds: float) -> bool:
        """Wait until nothing is left, at most `seconds`."""
        deadline = time.monotonic() + seconds
        while self.alive():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.wait(left)
        return True

    def send(self, number: signal.Signals) -> None:
        """Send a signal to every descendant.

        By process group, because the kernel signals a group at once: a process that forks and ends all the time
        would be gone from the list before its turn.
        """
        ours = os.getpgrp()
        found = descendants(os.getpid())
        for group in set(found.values()) - {ours}:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)
        for process, group in found.items():
            if group == ours:  # it has not yet left the server's group
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)


def descendants(ancestor: int) -> dict[int, int]:
    """Find the processes that descend from one, by /proc, and their process groups."""
    parents, groups = {}, {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib would double the cost of a guardian
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123
                    # The second field is the program's name in parentheses; it may hold anything.
                    _state, parent, group, *_ = stat.read().rpartition(b")")[2].split()
            except OSError:
                continue  # it has ended meanwhile
            parents[int(name)], groups[int(name)] = int(parent), int(group)
    found = {ancestor}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {process: groups[process] for process in found - {ancestor}}


def become(request: dict[str, Any], stdio: list[int], guardian: int) -> NoReturn:
    """Turn this new process into the script or command."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != guardian:  # it died before the line above
        os._exit(1)
    os.setsid()  # a script's `kill 0` must not reach its guardian
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for target, source in enumerate(stdio):
        os.dup2(source, target)
    os.closerange(3, 256)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as adjustment:  # noqa: PTH123
        adjustment.write("1000")  # when memory runs out the script goes, not its worker
    try:
        os.chdir(request["cwd"])
        if request["argv"]:
            execute(request["argv"], request["env"])
    except OSError as error:
        os.write(2, f"cannot run {error.filename}: {error.strerror}\n".encode())
        os._exit(EX_CONFIG)
    os.environ.clear()
    os.environ.update(request["env"])
    _run_python(request["python"])


def execute(argv: list[str], environ: dict[str, str]) -> NoReturn:
    """Replace this process by a program, found by the PATH in `environ`."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, programs do not expect that
        signal.signal(number, signal.SIG_DFL)
    program = shutil.which(argv[0], path=environ.get("PATH", os.defpath))
    if program is None:
        raise FileNotFoundError(2, "no such program", argv[0])
    os.execve(program, argv, environ)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
