"""Hints from a worker to the PDO, over real connections."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from helpers import background, wait_until
from prokos.engine import Slots
from prokos.pdo.executing import Executing
from prokos.pdo.flight import InFlight
from prokos.pdo.journal import Journal
from prokos.pdo.status import receive_hints
from prokos.tde import hints
from prokos.tde.hints import HintSender
from unit.builders import task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Receiver:
    """The PDO's side: tasks in flight, and the port where hints of them come in."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.flights = InFlight(self.journal, 30)
        self.executing = Executing()
        self.port = 0

    def take(self, *keys: int) -> None:
        slots = Slots(10)
        for key in keys:
            slots.take()
            self.journal.seen(task(key), 0)
            self.flights.add(task(key), slots)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        pdo = SimpleNamespace(flights=self.flights, executing=self.executing)
        server = await asyncio.start_server(partial(receive_hints, pdo), "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield


def completed(key: int) -> dict[str, object]:
    return {"job": key, "retries": 3, "outcome": "completed", "message": ""}


async def test_a_hint_ends_a_task():
    receiver = Receiver()
    receiver.take(1, 2)
    async with receiver.listening():
        sender = HintSender(f"127.0.0.1:{receiver.port}")
        async with background(sender.run()):
            sender.send({"job": 1, "retries": 3, "outcome": "failed", "message": "card declined"})
            await wait_until(lambda: 1 not in receiver.flights)
    assert 2 in receiver.flights
    entry = receiver.journal.latest(2)[1]
    assert (entry["state"], entry["message"]) == ("failed", "card declined")


async def test_a_hint_tells_of_a_task_that_is_executed_until_another_one_ends_it():
    receiver = Receiver()
    async with receiver.listening():
        sender = HintSender(f"127.0.0.1:{receiver.port}")
        async with background(sender.run()):
            sender.send({"job": 1, "retries": 3, "executor": "payer", "process": "order", "executing": 20.0})
            await wait_until(lambda: receiver.executing.counts() == {("payer", "order"): 1})
            sender.send(completed(1))
            await wait_until(lambda: not receiver.executing.counts())


async def test_keys_beyond_2_to_the_53_arrive_whole():
    key = 9007199254740993
    receiver = Receiver()
    receiver.take(key)
    async with receiver.listening():
        sender = HintSender(f"127.0.0.1:{receiver.port}")
        async with background(sender.run()):
            sender.send(completed(key))
            await wait_until(lambda: key not in receiver.flights)


async def test_hints_wait_for_a_pdo_that_is_not_there_yet(monkeypatch):
    monkeypatch.setattr(hints, "RECONNECT", 0.01)
    receiver = Receiver()
    receiver.take(1)
    async with receiver.listening():
        pass
    sender = HintSender(f"127.0.0.1:{receiver.port}")
    async with background(sender.run()):
        sender.send(completed(1))
        async with receiver.listening():
            await wait_until(lambda: 1 not in receiver.flights)


async def test_finds_a_pdo_again_that_was_restarted(monkeypatch):
    monkeypatch.setattr(hints, "RECONNECT", 0.01)
    receiver = Receiver()
    receiver.take(1)
    async with receiver.listening():
        sender = HintSender(f"127.0.0.1:{receiver.port}")
        sending = asyncio.create_task(sender.run())
        sender.send(completed(1))
        await wait_until(lambda: 1 not in receiver.flights)
    receiver.take(2)
    async with receiver.listening():

        def hint_again() -> bool:
            # Those that were written into the dead connection are lost, as hints may be.
            sender.send(completed(2))
            return 2 not in receiver.flights

        await wait_until(hint_again)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_sending_never_waits_and_drops_the_oldest_hints():
    receiver = Receiver()
    async with receiver.listening():
        pass
    sender = HintSender(f"127.0.0.1:{receiver.port}")
    for key in range(hints.BACKLOG + 2):
        sender.send(completed(key))
    receiver.take(0, 1, 2)
    async with receiver.listening(), background(sender.run()):
        await wait_until(lambda: 2 not in receiver.flights)
    assert 0 in receiver.flights
    assert 1 in receiver.flights


@pytest.mark.parametrize(
    "line", [b"garbage\n", b"[]\n", b"{}\n", b'{"job": "x", "retries": 3, "outcome": 1}\n', b"null\n", b"x" * 100_000]
)
async def test_what_is_no_hint_ends_the_connection_and_nothing_else(line):
    receiver = Receiver()
    receiver.take(1)
    async with receiver.listening():
        reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
        writer.write(line)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        sender = HintSender(f"127.0.0.1:{receiver.port}")
        async with background(sender.run()):
            sender.send(completed(1))
            await wait_until(lambda: 1 not in receiver.flights)
