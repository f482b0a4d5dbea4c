"""The arithmetic of the benchmarks, and that their parts fit together."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psutil
import pytest
from benchmarks import kinds
from benchmarks.compare import Comparison
from benchmarks.figures import Figure, percentile, slope, spread, table
from benchmarks.kinds import Services
from benchmarks.load import IN_FLIGHT, Burst, Way, steps, variables
from benchmarks.manifests import TEN, TEN_TYPES, recording_executor, ten_tasks
from benchmarks.observe import INSTANCES, POLLS
from benchmarks.overhead import HEAD, Kind, Measured, measure, plain_worker
from benchmarks.records import Record, RecordReader, RecordWriter
from benchmarks.soak import FLAT, report
from pyzeebe.proto import gateway_pb2 as pb

from engine.samples import write
from prokos.processes import check_manifests
from unit.gateway import Gateway, serving

if TYPE_CHECKING:
    from prokos.engine import EngineClient

ROOT = Path(__file__).parents[2]

METRICS = """\
zeebe_executed_instances_total{organizationId="null",type="ROOT_PROCESS_INSTANCE",action="completed",partition="1",} 1.0
zeebe_executed_instances_total{organizationId="null",type="ROOT_PROCESS_INSTANCE",action="activated",partition="1",} 3.0
zeebe_gateway_total_requests_total{requestType="JOB_BATCH#ACTIVATE",} 401.0
zeebe_gateway_total_requests_total{requestType="JOB#COMPLETE",} 6062.0
"""
"""A part of what Camunda 8.6.0 says of itself."""


@pytest.mark.parametrize("program", ["bench", "growth", "backlog", "soak", "overhead"])
def test_every_program_says_what_it_does(program: str) -> None:
    argv = [sys.executable, "-m", f"benchmarks.{program}", "--help"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert f"python -m benchmarks.{program}" in done.stdout


def test_a_figure_is_judged_by_the_median_of_its_rounds() -> None:
    ratio = Figure("ratio", spread([0.2, 0.31, 0.5]), "times", 0.3, "more")
    assert ratio.met is True
    assert ratio.verdict == ["at least 0.3", "met"]
    assert ratio.measured == "0.31 (0.20 to 0.50) times"
    assert Figure("memory", spread([91.0]), "MB", 90).verdict == ["at most 90", "**missed**"]
    assert Figure("rate", spread([91.0])).verdict == ["", ""]


def test_percentile_is_the_value_below_which_that_share_lies() -> None:
    assert percentile(range(1, 101), 0.95) == 96
    assert percentile([5.0], 0.95) == 5.0


def test_tables_have_columns_of_equal_width() -> None:
    lines = table(["a", "b"], [["long cell", ""], ["", "1"]]).splitlines()
    assert len(set(map(len, lines))) == 1, lines
    assert lines[0].startswith("| a ")


def test_memory_that_grows_is_found_after_the_warm_up() -> None:
    grows = [(hour / 100, 80 + (FLAT + 1) * hour / 100) for hour in range(100)]
    settles = [(hour / 100, 80 + (30 if hour > 10 else 0)) for hour in range(100)]
    assert slope(grows) == pytest.approx(FLAT + 1)
    assert report({"pdo": settles, "engine": grows}, 1.0)[1], "the engine is not ours"
    text, flat = report({"pdo": grows, "kernel": settles}, 1.0)
    assert not flat
    assert "+6.00" in text


def test_latency_has_no_step_with_a_timer() -> None:
    came = [Record(1, element, 10.0 + position) for position, element in enumerate(TEN)]
    assert steps(9.5, came) == [0.5] + [1.0] * 7
    assert steps(9.5, came[:1]) == [0.5]


def test_ratios_are_those_of_rounds_side_by_side(tmp_path: Path) -> None:
    reader = RecordReader(tmp_path / "records")
    one = Comparison("one task", Way("plain", "a", reader, 1), Way("ours", "b", reader, 1))
    one.bursts = {
        "plain": [Burst(100, 1.0, {"engine": 0.2}), Burst(100, 2.0, {"engine": 0.2})],
        "ours": [Burst(100, 2.0, {"engine": 0.3, "pdo": 0.1}), Burst(100, 5.0, {"engine": 0.3, "pdo": 0.1})],
    }
    one.singles = {"plain": [[0.004], [0.005]], "ours": [[0.010], [0.012]]}
    throughput, latency = one.figures()
    assert throughput.value == spread([0.5, 0.4])
    assert latency.value.median == pytest.approx(6.5)
    assert one.rows()[3][1:3] == ["2.0", "4.0"]


async def test_records_are_read_once_and_repetitions_counted(tmp_path: Path) -> None:
    reader = RecordReader(tmp_path / "records")
    writer = RecordWriter(tmp_path / "records")
    writer.write(1, "Task")
    writer.write(1, "Other")
    assert [(one.number, one.element) for one in reader.read()] == [(1, "Task"), (1, "Other")]
    waiting = asyncio.create_task(reader.wait_for(1, 5))
    writer.write(1, "Task")
    writer.write(2, "Task")
    assert [one.number for one in await waiting] == [2]
    assert reader.repeated == 1
    with pytest.raises(TimeoutError, match="0 of 1"):
        await reader.wait_for(1, 0.01)
    writer.close()


def test_the_engines_counters_are_read() -> None:
    assert dict(INSTANCES.findall(METRICS)) == {"completed": "1.0", "activated": "3.0"}
    assert POLLS.findall(METRICS) == ["401.0"]


def test_processes_and_executors_are_valid(tmp_path: Path) -> None:
    resources = kinds.executors(tmp_path / "records", Services("http://127.0.0.1:8080/", "127.0.0.1:1"), also=TEN_TYPES)
    resources.append(recording_executor("other", tmp_path / "other", ["other"], scaling={"min": 0, "max": 1}))
    directory = write(tmp_path, processes={**kinds.processes(error="REFUSED"), "ten": ten_tasks("ten", "ten")})
    write(directory, resources=resources)
    checked = check_manifests([directory])
    assert checked.problems == []
    processes = {process.process_id: process for one in checked.definitions for process in one.bpmn.processes}
    assert [task.job_type for task in processes["ten"].tasks] == list(TEN_TYPES)


def test_what_a_type_adds_is_judged_by_pairs_of_rounds() -> None:
    by_hand = Measured([0.010, 0.020], [100, 200], [0.001, 0.003])
    ours = Measured([0.012, 0.026], [50, 150], [0.002, 0.004])
    row = dict(zip(HEAD, Kind("http", by_hand, ours).row(), strict=True))
    assert row["added, ms"] == "4.0 (2.0 to 6.0)"
    assert row["ratio"] == "0.62 (0.50 to 0.75)"
    assert (row["by hand, ms"], row["our worker, CPU ms"]) == ("15.0", "3.0")


async def test_a_round_runs_instances_one_at_a_time_and_then_many() -> None:
    started: list[int] = []
    running = most = 0

    class Client:
        async def run_instance(self, process: str, variables: dict[str, Any], *, timeout: float) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            started.append(variables["number"])
            await asyncio.sleep(0)
            running -= 1

    measured = Measured()
    await measure(cast("EngineClient", Client()), "one-http", [psutil.Process()], measured, singles=3, burst=20)
    assert started[:3] == [0, 1, 2]
    assert sorted(started[3:]) == list(range(20))
    assert most == IN_FLIGHT
    assert [len(of) for of in (measured.latencies, measured.rates, measured.costs)] == [1, 1, 1]


class OneOfEach(Gateway):
    """Hands out one job of each type, and takes their results."""

    def __init__(self) -> None:
        super().__init__()
        self.results: dict[str, Any] = {}
        self._types: list[str] = []

    async def ActivateJobs(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.type not in self._types:
            self._types.append(request.type)
            job = pb.ActivatedJob(
                key=len(self._types), type=request.type, variables=json.dumps(variables(7)), customHeaders="{}"
            )
            yield pb.ActivateJobsResponse(jobs=[job])
        else:
            await asyncio.sleep(60)

    async def StreamActivatedJobs(self, request: Any, context: Any) -> Any:  # noqa: N802
        await asyncio.sleep(60)
        yield pb.ActivatedJob()

    async def CompleteJob(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.results[self._types[request.jobKey - 1]] = json.loads(request.variables)
        return pb.CompleteJobResponse()


async def test_the_worker_by_hand_does_what_the_executors_do(tmp_path: Path) -> None:
    async with kinds.serving() as services, serving(OneOfEach()) as gateway:
        with plain_worker(gateway.address, tmp_path, services):
            deadline = time.monotonic() + 120
            while len(gateway.results) < len(kinds.KINDS):
                assert time.monotonic() < deadline, (gateway.results, (tmp_path / "plain-worker.log").read_text())
                await asyncio.sleep(0.05)
    assert gateway.results == {
        "plain-python": {"done": 7},
        "plain-script": {"done": 7},
        "plain-http": {"done": 7},
        "plain-grpc": {"paymentId": "pppp", "cents": "7"},
        "plain-sql": {"rowCount": 1},
        "plain-container": {"done": 7},
    }
