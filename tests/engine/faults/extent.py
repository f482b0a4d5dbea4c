"""How much the fault tests do, and with which seed."""

from __future__ import annotations

import os
import random

from engine.faults.fleet import Fleet
from engine.faults.ledger import Findings

INSTANCES = int(os.environ.get("PROKOS_FAULT_INSTANCES", "300"))
"""Instances of ten tasks that a kill meets."""

FEWER = max(INSTANCES // 5, 20)
"""Instances that the other faults meet."""

SETTLE = 120
"""Seconds for which nothing may stand still after a fault: some leases. How long it takes in all is the machine's."""


def new_seed() -> int:
    """The seed that was asked for, else a new one."""
    return int(os.environ.get("PROKOS_FAULT_SEED", random.SystemRandom().randrange(10**6)))


def settle(fleet: Fleet) -> Findings:
    """Wait until everything has ended, and check that the ledger shows nothing wrong."""
    findings = fleet.settle(SETTLE)
    assert not findings.problems, f"seed {fleet.seed}: {findings}\n{fleet.dev.logs()}"
    return findings
