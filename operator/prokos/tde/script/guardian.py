"""The guardian of one running script: starts it, sees it through and leaves nothing of it behind.

It is a child subreaper, so whatever the script starts stays below it, also a process that detaches into a session of
its own. It ends them all when the script is over, when the worker shuts its end of the control socket, when the worker
dies, which closes that socket too, and when a limit is exceeded. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import time
from typing import TYPE_CHECKING, Any, NoReturn

from . import python
from .files import exceeds, remove
from .forks import answer, is_fork, let_restart, listen, next_question, supported
from .limits import SIGNALS, Limits, apply, let_through
from .processes import descendants, scan, send

if TYPE_CHECKING:
    from types import FrameType

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
EX_CONFIG = 78
"""Exit code of a failure that no further attempt can mend; from sysexits.h."""
KILL_SECONDS = 5.0
"""How long processes may take to go after SIGKILL; only uninterruptible I/O takes longer."""
DISK_SECONDS = 1.0
"""How often the script's directory is measured, unless that takes more than a tenth of the time."""

_libc = ctypes.CDLL(None, use_errno=True)


def guard(control: socket.socket, limits: Limits) -> NoReturn:
    """Start what the control socket asks for, see it through and leave nothing of it behind."""
    wakeup, wake = os.pipe()
    for end in (wakeup, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        control.sendall(b"guardian %d\n" % os.getpid())
        _, stdio, _, _ = socket.recv_fds(control, 1, 3)
        request = json.loads(receive(control, int.from_bytes(receive(control, 4), "big")))
    except OSError:
        os._exit(0)
    guardian = os.getpid()
    ours, theirs = socket.socketpair()
    try:
        child = os.fork()
    except OSError as error:
        control.sendall(f"error cannot start a process: {error.strerror}".encode())
        os._exit(0)
    if child == 0:
        ours.close()
        become(request, stdio, guardian, limits, theirs)
    for descriptor in stdio:
        os.close(descriptor)
    theirs.close()
    _, listener, _, _ = socket.recv_fds(ours, 1, 1)
    ours.close()
    family = Family(child, control, wakeup, request["directories"], limits)
    if listener:
        family.ask_about_forks(listener[0])
    family.see_through(request["grace"])
    try:
        control.sendall((f"limit {family.exceeded}" if family.exceeded else f"exit {family.status}").encode())
    except OSError:  # the worker is dead, so nobody else tidies up
        for directory in request["directories"]:
            remove(directory)
    os._exit(0)


def receive(connection: socket.socket, size: int) -> bytes:
    """Read exactly so many bytes; ends this process if the worker gave up before it had said what to do."""
    received = b""
    while len(received) < size:
        more = connection.recv(size - len(received))
        if not more:
            os._exit(0)
        received += more
    return received


class Family:
    """The script and everything it started: the descendants of this process."""

    def __init__(self, child: int, control: socket.socket, wakeup: int, directories: list[str], limits: Limits) -> None:
        self.child = child
        self.status: int | None = None
        self.exceeded: str | None = None
        """The limit because of which the script was ended."""
        self.control = control
        self.wakeup = wakeup
        self.directories = directories
        self.limits = limits
        self.listener = -1
        self.ending = False
        self.started = 1
        """Processes and threads that were started since they were last counted, and those that were there then."""
        self.poller = select.poll()
        self.poller.register(wakeup, select.POLLIN)
        for number in SIGNALS.values():
            signal.signal(number, self.exceed)
        let_through()

    def ask_about_forks(self, listener: int) -> None:
        """Decide about each fork, as `forks` lets us."""
        self.listener = listener
        self.poller.register(listener, select.POLLIN)

    def exceed(self, number: int, _frame: FrameType | None) -> None:
        """Take the server's word that the script has exceeded a limit."""
        self.exceeded = next(limit for limit, known in SIGNALS.items() if known == number)

    def see_through(self, grace: float) -> None:
        """Wait for the script's end, an exceeded limit or the worker's word, then end whatever is left."""
        self.poller.register(self.control, select.POLLIN)  # the worker says no more, so readable means closed
        alive = self.alive()
        measure = time.monotonic() + DISK_SECONDS
        while self.status is None and self.exceeded is None:
            if self.control.fileno() in self.wait(max(0.0, measure - time.monotonic())):
                self.poller.unregister(self.control)
                self.send(signal.SIGTERM)
                alive = not self.gone_within(grace)
                break
            alive = self.alive()
            if self.status is None and time.monotonic() >= measure:
                measure = self.measure()
        self.ending = True
        deadline = time.monotonic() + KILL_SECONDS
        while alive and time.monotonic() < deadline:
            self.send(signal.SIGKILL)
            alive = not self.gone_within(0.02)

    def measure(self) -> float:
        """Measure the script's directories; returns when to do so again."""
        started = time.monotonic()
        if any(exceeds(directory, self.limits.disk) for directory in self.directories):
            self.exceeded = "disk"
        took = time.monotonic() - started
        return started + max(DISK_SECONDS, 10 * took)

    def wait(self, seconds: float) -> set[int]:
        """Wait until a process ends or the worker closes; returns the descriptors that said so."""
        ready = dict(self.poller.poll(seconds * 1000))
        if self.wakeup in ready:
            os.read(self.wakeup, 512)
        if ready.get(self.listener, 0) & select.POLLIN:
            self.decide()
        elif self.listener in ready:  # nobody is left who could ask
            self.poller.unregister(self.listener)
        return set(ready)

    def decide(self) -> None:
        """Answer what one of the processes asks."""
        question = next_question(self.listener)
        if question is None:
            return
        if is_fork(question):
            answer(self.listener, question, self.may_fork())
            return
        let_restart(self.listener, question)
        answer(self.listener, question, allowed=True)

    def may_fork(self) -> bool:
        """Whether the script may start one more process or thread."""
        if self.ending:
            return False
        self.started += 1
        if self.started > self.limits.processes:  # those that have ended since do not count
            family = descendants(scan(), os.getpid())
            self.started = sum(process.threads for process in family.values()) + 1
            if self.started > self.limits.processes:
                self.exceeded = "processes"
                return False
        return True

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
        """Send a signal to every descendant."""
        send(descendants(scan(), os.getpid()), number)


def become(request: dict[str, Any], stdio: list[int], guardian: int, limits: Limits, forks: socket.socket) -> NoReturn:
    """Turn this new process into the script or command; hands its listener for forks to the guardian."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != guardian:  # it died before the line above
        os._exit(1)
    os.setsid()  # a script's `kill 0` must not reach its guardian
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    let_through()
    for target, source in enumerate(stdio):
        os.dup2(source, target)
    _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # else its own /proc/self is closed to it
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener = listen() if supported() else None
    socket.send_fds(forks, [b"."], [] if listener is None else [listener])
    os.closerange(3, 256)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as adjustment:  # noqa: PTH123
        adjustment.write("1000")  # when memory runs out the script goes, not its worker
    try:
        apply(limits)
        os.chdir(request["cwd"])
        if request["argv"]:
            execute(request["argv"], request["env"])
    except OSError as error:
        os.write(2, f"cannot run {error.filename}: {error.strerror}\n".encode())
        os._exit(EX_CONFIG)
    os.environ.clear()
    os.environ.update(request["env"])
    python.run(request["python"], request["name"], request["arguments"])


def execute(argv: list[str], environ: dict[str, str]) -> NoReturn:
    """Replace this process by a program, found by the PATH in `environ`."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, programs do not expect that
        signal.signal(number, signal.SIG_DFL)
    program = shutil.which(argv[0], path=environ.get("PATH", os.defpath))
    if program is None:
        raise FileNotFoundError(2, "no such program", argv[0])
    os.execve(program, argv, environ)  # noqa: S606 - no shell is the point
