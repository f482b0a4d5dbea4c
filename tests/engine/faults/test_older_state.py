"""An engine whose data is replaced by an older copy: a backup that is restored."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from engine.faults.extent import FEWER, new_seed, settle
from engine.faults.fleet import BEAT_WITHIN, Fleet
from engine.samples import HEAD, write

LATE = f"""{HEAD}<bpmn:process id="late" isExecutable="true">
<bpmn:startEvent id="Start"><bpmn:outgoing>f</bpmn:outgoing></bpmn:startEvent>
<bpmn:endEvent id="End"><bpmn:incoming>f</bpmn:incoming></bpmn:endEvent>
<bpmn:sequenceFlow id="f" sourceRef="Start" targetRef="End"/>
</bpmn:process></bpmn:definitions>
"""


def test_an_engine_that_was_set_back_executes_again_what_it_has_forgotten(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, new_seed())
    data, older = fleet.dev.state / "engine", tmp_path / "older"
    fleet.dev.start()
    try:
        kept = fleet.load(FEWER)
        copied = fleet.kill_all()
        shutil.copytree(data, older)

        fleet.dev.start()
        write(tmp_path / "manifests", processes={"late": LATE})
        fleet.dev.wait_for_process("late")
        fleet.load(FEWER // 2)
        executed = results(fleet, since=copied)
        fleet.kill_all()
        shutil.rmtree(data)
        older.rename(data)
        forgotten = fleet.undo(copied)

        fleet.dev.start()
        back = time.time()
        took = fleet.wait_for_beat(back)
        fleet.start(5)
        assert fleet.dev.run_process("late") == {}
        settle(fleet)
        repeated = results(fleet, since=copied) & executed
        print(f"{len(forgotten)} instances and {len(repeated)} results were forgotten; the latter were executed again")
        assert forgotten
        assert repeated >= {(instance, element) for instance, element in executed if instance in kept}
        assert took < BEAT_WITHIN
    finally:
        fleet.dev.stop()


def results(fleet: Fleet, since: float) -> set[tuple[int, str]]:
    """Instance and element of the executions that began since and ended with a result."""
    return {(one.instance, one.element) for one in fleet.executions() if one.started > since and one.how == "end"}
