"""A campaign of chance: starts, cancels, kills and pauses at once; then everything settles and is checked."""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.faults.extent import SETTLE
from engine.faults.fleet import Fleet
from engine.faults.ledger import Findings
from prokos.logs import configure_logging

MOST_OPEN = 300
"""Instances under way at a time."""

KILLS = ("prokos.pdo", "prokos.tde", "java"), ("prokos.pdo", "prokos.tde") * 3
"""What is killed: first each once, then these and those in turn; the order is chance's."""

PAUSES = {"prokos.pdo": 1, "prokos.tde": 2}

LONGEST_PAUSE = 30.0
"""Seconds; longer than every lease."""

BETWEEN_BROKER_KILLS = 25.0
"""Seconds the engine has at least to come back and work."""


class Campaign:
    """Chance, from one seed: which faults come and when. What they meet depends on the machine as well."""

    def __init__(self, fleet: Fleet, seconds: float) -> None:
        self.fleet = fleet
        self.seconds = seconds
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []
        self._end = threading.Event()
        self._to_kill: list[str] = []
        self._rounds = 0

    def run(self) -> Findings:
        """Run it for its time, then wait until everything has ended."""
        parts: list[Callable[[random.Random], None]] = [self._load, self._kill, self._pause]
        with ThreadPoolExecutor(len(parts)) as threads:
            timer = threading.Timer(self.seconds, self._end.set)
            timer.start()
            try:
                for part in parts:
                    chance = random.Random(f"{self.fleet.seed}-{part.__name__}")
                    threads.submit(self._repeat, part, chance)
                self._end.wait()
            finally:
                timer.cancel()
                self._end.set()
        return self.fleet.settle(SETTLE)

    def _repeat(self, part: Callable[[random.Random], None], chance: random.Random) -> None:
        while not self._end.is_set():
            try:
                part(chance)
            except ProcessLookupError:
                # What was to be hit has just ended by another fault.
                continue
            except Exception:  # noqa: BLE001 - it is shown with the summary and fails the campaign
                self.errors.append(traceback.format_exc())
                self._end.set()

    def _load(self, chance: random.Random) -> None:
        wished, cancelling, pick = chance.randint(5, 30), chance.random() < 0.2, chance.random()
        executions = self.fleet.executions()
        ended = {one.instance for one in executions if len(one.tokens) == 9 and one.how == "end"}
        open_instances = sorted(self.fleet.instances - self.fleet.cancelled - ended)
        if cancelling and open_instances:
            first = int(pick * len(open_instances))
            self.done["cancelled"] += len(self.fleet.cancel(open_instances[first : first + wished // 3 + 1]))
        elif len(open_instances) + wished <= MOST_OPEN:
            self.done["started"] += len(self.fleet.start(wished))
        self._end.wait(chance.uniform(0.2, 1.5))

    def _kill(self, chance: random.Random) -> None:
        if not self._to_kill:
            self._to_kill = list(KILLS[self._rounds % 2])
            self._rounds += 1
            chance.shuffle(self._to_kill)
        kind, wait, pick = self._to_kill.pop(), chance.uniform(1, 8), chance.random()
        if self._end.wait(wait):
            return
        if found := self.fleet.processes(kind):
            self.fleet.kill(found[int(pick * len(found))])
            self.done[f"killed {kind}"] += 1
        if kind == "java":
            self._end.wait(min(BETWEEN_BROKER_KILLS, self.seconds / 3))

    def _pause(self, chance: random.Random) -> None:
        (kind,) = chance.choices([*PAUSES], [*PAUSES.values()])
        wait, length, pick = chance.uniform(1, 8), chance.uniform(0.5, LONGEST_PAUSE), chance.random()
        if self._end.wait(wait):
            return
        if found := self.fleet.processes(kind):
            self.fleet.pause(found[int(pick * len(found))], min(length, self.seconds / 2))
            self.done[f"paused {kind}"] += 1


def run_campaign(directory: Path, seed: int, seconds: float) -> int:
    """Run a campaign and print what came of it; the exit code."""
    configure_logging((directory / "campaign.log").open("a", buffering=1))
    print(f"seed {seed}, {seconds:g} s, everything is kept in {directory}", flush=True)
    with Fleet(directory, seed) as fleet:
        campaign = Campaign(fleet, seconds)
        begun = time.monotonic()
        try:
            findings = campaign.run()
            beat = fleet.wait_for_beat(time.time(), timeout=30)
        except AssertionError as error:
            print(f"FAILED: {error}\n{''.join(campaign.errors)}")
            return 1
        print(f"done: {dict(campaign.done)}")
        print(f"found: {findings}")
        print(f"settled after {time.monotonic() - begun:.0f} s; the heartbeat beats ({beat:.1f} s)")
    failed = bool(findings.problems or campaign.errors)
    print(f"{'FAILED' if failed else 'ok'}: seed {seed}\n{''.join(campaign.errors)}")
    return int(failed)
