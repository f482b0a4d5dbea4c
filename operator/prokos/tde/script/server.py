"""The server that starts scripts: forks a guardian for each, and watches what all of them use.

It is a child subreaper: when a script kills its guardian, what it had started becomes the server's, which ends it.
Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import time
from typing import Any

from . import python
from .forks import filter_program, supported
from .guardian import guard, receive
from .limits import SIGNALS, WATCH_SECONDS, Limits, exceeded, hold_back
from .processes import descendants, scan, send

PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def serve(requests: socket.socket) -> None:
    """Get ready, say so, and fork a guardian for every control socket that arrives, until the worker closes."""
    config = json.loads(receive(requests, int.from_bytes(receive(requests, 4), "big")))
    # Nobody of the same user reads this process's memory, nor a guardian's, which holds what its script is given.
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    hold_back()
    for name in config["preload"]:
        try:
            importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001 - a module may raise anything, also SystemExit
            requests.sendall(f"error cannot import {name}: {type(error).__name__}: {error}\n".encode())
            return
    if config["python"] is not None:
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):  # each task says it itself
            python.compiled(config["python"], config["name"])
    if supported():
        filter_program()  # kept for the guardians
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page it shares with this process
    requests.sendall(b"ready\n")
    Server(requests, Limits(**config["limits"])).serve()


class Server:
    """The guardians there are, and the next look at what their programs use."""

    def __init__(self, requests: socket.socket, limits: Limits) -> None:
        self.requests = requests
        self.limits = limits
        self.guardians: dict[int, str | None] = {}
        """Process to the limit that it was told its program has exceeded."""
        self.orphans = False
        """A guardian was killed, and what it guarded may be left."""
        self.next_watch = 0.0
        self.wakeup, wake = os.pipe()
        for end in (self.wakeup, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        """Work until the worker closes its end of the socket."""
        poller = select.poll()
        poller.register(self.requests, select.POLLIN)
        poller.register(self.wakeup, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poller.poll(self.patience())}
            if self.wakeup in ready:
                os.read(self.wakeup, 512)
            self.reap()
            if self.requests.fileno() in ready and not self.accept():
                return
            if (self.guardians or self.orphans) and time.monotonic() >= self.next_watch:
                self.watch()
                self.next_watch = time.monotonic() + WATCH_SECONDS

    def patience(self) -> float | None:
        """Milliseconds until the next look; None while nothing runs."""
        if not self.guardians and not self.orphans:
            return None
        return max(0.0, self.next_watch - time.monotonic()) * 1000

    def accept(self) -> bool:
        """Fork a guardian for the next control socket. False when the worker has closed its end."""
        message, descriptors, _, _ = socket.recv_fds(self.requests, 1, 1)
        if not message:
            return False
        with socket.socket(fileno=descriptors[0]) as control:
            if not self.guardians:
                self.next_watch = time.monotonic() + WATCH_SECONDS
            try:
                guardian = os.fork()
            except OSError as error:  # this task fails, a later one may work
                with contextlib.suppress(OSError):
                    control.sendall(f"error cannot start a process: {error.strerror}\n".encode())
                return True
            if guardian == 0:
                self.requests.close()
                guard(control, self.limits)
            self.guardians[guardian] = None
        return True

    def reap(self) -> None:
        """Collect what has ended: guardians, and what a killed one left."""
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if ended == 0:
                return
            if ended in self.guardians:
                del self.guardians[ended]
                if status:
                    self.orphans, self.next_watch = True, 0.0

    def watch(self) -> None:
        """Tell guardians whose program exceeds a limit; end what killed guardians left."""
        processes = scan()
        guarded: dict[int, Any] = {}
        for guardian, told in self.guardians.items():
            family = descendants(processes, guardian)
            guarded.update(family)
            if told is None and guardian in processes:
                limit = exceeded(self.limits, processes[guardian], family)
                if limit is not None:
                    os.kill(guardian, SIGNALS[limit])
                    self.guardians[guardian] = limit
        if self.orphans:
            strays = {
                number: process
                for number, process in descendants(processes, os.getpid()).items()
                if number not in guarded and number not in self.guardians
            }
            send(strays, signal.SIGKILL)
            self.orphans = bool(strays)
