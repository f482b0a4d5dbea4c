"""Forks that are asked about must not fail because a child ends meanwhile, as they would on their own."""

from __future__ import annotations

import sys

from structlog.testing import capture_logs

from unit.script_bench import marker, run, scratch_root, shell

__all__ = ["marker", "scratch_root"]

PIPELINES = """
for i in $(seq 300); do
  printf x | cat | tr x y | cut -c 1
done > made
printf '{"lines": %s}' "$(grep -c y made)" > "$PROKOS_OUTPUT"
"""

HANDLER = """
import ctypes, json, os, signal
class Action(ctypes.Structure):
    _fields_ = [
        ("handler", ctypes.c_void_p), ("mask", ctypes.c_ulong * 16), ("flags", ctypes.c_int), ("_", ctypes.c_void_p)
    ]
libc, found = ctypes.CDLL(None), {}
for name in ("SIGCHLD", "SIGUSR1"):
    action = Action(flags=0)
    action.handler = ctypes.cast(ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: None), ctypes.c_void_p)
    assert libc.sigaction(getattr(signal, name), ctypes.byref(action), None) == 0
    assert libc.sigaction(getattr(signal, name), None, ctypes.byref(action)) == 0
    found[name] = bool(action.flags & 0x10000000)
open(os.environ["PROKOS_OUTPUT"], "w").write(json.dumps(found))
"""


async def test_a_shells_pipelines_are_whole() -> None:
    with capture_logs() as logs:
        assert await shell(PIPELINES) == {"lines": 300}
    assert [entry["line"] for entry in logs if "line" in entry] == []


async def test_calls_that_the_end_of_a_child_interrupts_begin_anew() -> None:
    """Only those: what another signal does is the script's own."""
    assert await run(command=[sys.executable, "-c", HANDLER]) == {"SIGCHLD": True, "SIGUSR1": False}


WILD = """
import ctypes, json, mmap, os
page = mmap.mmap(-1, mmap.PAGESIZE)
end = ctypes.addressof(ctypes.c_char.from_buffer(page)) + mmap.PAGESIZE
addresses = [1, 2**47, 2**63 - 4, 2**63, 2**64 - 1, end - 4, end - 12]
libc = ctypes.CDLL(None)
for address in addresses:
    libc.syscall(ctypes.c_long(13 if os.uname().machine == "x86_64" else 134), 17, ctypes.c_void_p(address), None, 8)
open(os.environ["PROKOS_OUTPUT"], "w").write(json.dumps({"asked": len(addresses)}))
"""


async def test_a_handler_at_a_wild_address_harms_nobody() -> None:
    assert await run(command=[sys.executable, "-c", WILD]) == {"asked": 7}


async def test_a_shell_still_waits_for_its_children() -> None:
    source = """
        trap 'echo ended >> ended' CHLD
        sleep 0.2 & sleep 0.1 & wait || wait || wait
        (exit 3) || code=$?
        printf '{"code": %s}' "$code" > "$PROKOS_OUTPUT"
    """
    assert await shell(source) == {"code": 3}
