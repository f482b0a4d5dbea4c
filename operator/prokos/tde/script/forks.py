"""Asking a guardian before a script's processes start further ones, so that no fork bomb outruns it.

The kernel's own limits do not serve: RLIMIT_NPROC counts all processes of a user on the machine and spares root, and
a pod cannot write its cgroups. A seccomp filter whose decisions another process takes (seccomp_unotify(2), Linux 5.5)
needs no privilege, holds for all descendants, and works for root too. Where there is none (gVisor, older kernels,
other processors), the server's look at all processes every tenth of a second is what limits them.

Runs in the guardian and in the script's process before it is one: standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import re
import signal
import struct
from typing import NamedTuple


class _Machine(NamedTuple):
    audit: int
    """AUDIT_ARCH_* of linux/audit.h."""
    seccomp: int
    """Number of the system call seccomp(2)."""
    sigaction: int
    """Number of the system call rt_sigaction(2)."""
    forks: tuple[int, ...]
    """Numbers of clone, fork, vfork and clone3, as far as there are."""


_MACHINES = {
    "x86_64": _Machine(0xC000003E, 317, 13, (56, 57, 58, 435)),
    "aarch64": _Machine(0xC00000B7, 277, 134, (220, 435)),
}
_FORKS_32 = (120, 2, 190, 435)
"""The same calls of 32-bit programs, on i386 and on arm."""
_X32 = 0x40000000
"""Bit in the numbers of x86_64's third way of calling, which the numbers above are looked for without."""

# linux/bpf_common.h, linux/seccomp.h
_LOAD, _AND, _JUMP_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_SET_MODE_FILTER = 1
_NEW_LISTENER, _WAIT_KILLABLE = 1 << 3, 1 << 5
_CONTINUE = 1
_RECEIVE, _SEND, _ID_VALID = 0xC0502100, 0xC0182101, 0x40082102
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")

# linux/signal.h and struct sigaction as rt_sigaction(2) takes it: handler, flags, ...
_SA_RESTART = 0x10000000
_FLAGS = struct.Struct("=Q")
_FLAGS_AT = 8

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


@functools.cache
def filter_program() -> bytes:
    """A BPF program that notifies of calls that make a process or thread or handle SIGCHLD, and allows the rest."""
    machine = _MACHINES[os.uname().machine]
    native, foreign = machine.forks, _FORKS_32

    def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, value)

    def look_for(numbers: tuple[int, ...], to_notify: int) -> list[bytes]:
        return [
            instruction(_JUMP_EQUAL, number, len(numbers) - 1 - index + to_notify)
            for index, number in enumerate(numbers)
        ]

    allow, notify = instruction(_RETURN, _ALLOW), instruction(_RETURN, _NOTIFY)
    return b"".join(
        [
            instruction(_LOAD, _OFFSET_ARCH),
            instruction(_JUMP_EQUAL, machine.audit, 0, 1 + 1 + len(native) + 3 + 2),
            instruction(_LOAD, _OFFSET_NUMBER),
            instruction(_AND, 0xFFFFFFFF & ~_X32),
            *look_for(native, 3 + 1),
            instruction(_JUMP_EQUAL, machine.sigaction, 0, 2),
            instruction(_LOAD, _OFFSET_FIRST_ARGUMENT),
            instruction(_JUMP_EQUAL, signal.SIGCHLD, 1, 0),
            allow,
            notify,
            instruction(_LOAD, _OFFSET_NUMBER),
            *look_for(foreign, 1),
            allow,
            notify,
        ]
    )


def supported() -> bool:
    """Whether this kernel can be asked. By its version: one that cannot take the answer would stop every fork."""
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return os.uname().machine in _MACHINES and version is not None and tuple(map(int, version.groups())) >= (5, 5)


def listen() -> int | None:
    """Filter the forks of this process and its descendants; needs PR_SET_NO_NEW_PRIVS.

    Returns:
        Descriptor by which another process gets to decide about them; None where this cannot be.
    """
    code = filter_program()
    number = _MACHINES[os.uname().machine].seccomp
    program = _Program(len(code) // 8, ctypes.cast(ctypes.c_char_p(code), ctypes.c_void_p))
    for flags in (_NEW_LISTENER | _WAIT_KILLABLE, _NEW_LISTENER):  # the second before Linux 5.19
        listener: int = _libc.syscall(number, _SET_MODE_FILTER, flags, ctypes.byref(program))
        if listener >= 0:
            return listener
    return None


class Question(NamedTuple):
    """A system call that waits for an answer."""

    id: int
    process: int
    call: int
    arguments: tuple[int, ...]


def next_question(listener: int) -> Question | None:
    """The call that is asked about next; None when who asked is gone, or asks again after a signal."""
    notification = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, notification)
    except OSError:
        return None
    number, process, _, call, _, _, *arguments = _NOTIFICATION.unpack(notification)
    return Question(number, process, call, tuple(arguments))


def is_fork(question: Question) -> bool:
    """Whether it would make a process or thread, rather than handle SIGCHLD."""
    return question.call != _MACHINES[os.uname().machine].sigaction


def answer(listener: int, question: Question, allowed: bool) -> None:
    """Allow or refuse a call; a fork that is refused fails as if the machine had too many processes."""
    said = (question.id, 0, 0, _CONTINUE) if allowed else (question.id, 0, -errno.EAGAIN, 0)
    with contextlib.suppress(OSError):  # it was killed meanwhile
        fcntl.ioctl(listener, _SEND, bytearray(_ANSWER.pack(*said)))


def let_restart(listener: int, question: Question) -> None:
    """Have forks begin anew that a SIGCHLD interrupts while they wait for their answer.

    Until a question is received, a signal that its process handles ends the call: with EINTR, which no fork fails with
    otherwise, unless the handler has SA_RESTART. A shell whose handler has not (dash, busybox) then gives up a pipeline
    at random, because one of its children ended just then. So the flag is added, in the copy of the C library that the
    kernel is about to read. Where that memory may not be written nothing changes.
    """
    action = question.arguments[1]
    if not action:  # it only asks what the handler is
        return
    # The address is the script's word: any number, and perhaps of no memory or of the last bytes of some.
    with contextlib.suppress(OSError, OverflowError, struct.error):
        memory = os.open(f"/proc/{question.process}/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            # Only now is it certain whose memory it is: the process may have ended, and its number be another's.
            fcntl.ioctl(listener, _ID_VALID, struct.pack("=Q", question.id))
            (flags,) = _FLAGS.unpack(os.pread(memory, _FLAGS.size, action + _FLAGS_AT))
            os.pwrite(memory, _FLAGS.pack(flags | _SA_RESTART), action + _FLAGS_AT)
        finally:
            os.close(memory)
