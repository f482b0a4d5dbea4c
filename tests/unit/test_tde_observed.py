"""What a worker shows of its tasks: metrics, and one line of the log for each attempt."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from helpers import wait_until
from prokos.engine import NotFoundError, RejectedError
from prokos.tde import BusinessError, Context, FatalFailure, RetryableFailure
from unit.builders import task
from unit.tde_bench import PARENT, TDE, Bench, called, dispatched, renewed_often

__all__ = ["renewed_often"]


def raising(error: Exception | None):
    async def work(_: dict[str, Any], __: Context) -> dict[str, Any]:
        if error is not None:
            raise error
        return {}

    return work


LAST_LINES = ("task ended", "attempt stopped")


async def hang(_: dict[str, Any], __: Context) -> None:
    await asyncio.Event().wait()


async def scraped(bench: Bench) -> dict[tuple[str, str], float]:
    """The metrics as Prometheus gets them: value by name and outcome."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    stop = bench.worker.metrics.serve(address)
    try:
        fetch = urllib.request.urlopen
        text = (await asyncio.to_thread(lambda: fetch(f"http://{address}/metrics", timeout=5).read())).decode()
    finally:
        await asyncio.to_thread(stop)
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples if not sample.name.endswith("_created")]
    assert {sample.labels["executor"] for sample in samples} == {"payer"}
    assert {name for sample in samples for name in sample.labels} <= {"executor", "outcome", "le"}
    return {(one.name, one.labels.get("outcome", "")): one.value for one in samples if "le" not in one.labels}


ENDINGS = [
    (None, "completed", "info"),
    (BusinessError("DECLINED", "no money"), "error", "warning"),
    (RetryableFailure("down"), "failed", "warning"),
    (FatalFailure("broken"), "incident", "warning"),
    (KeyError("a bug"), "failed", "warning"),
]


@pytest.mark.parametrize(("error", "outcome", "level"), ENDINGS)
async def test_each_attempt_is_counted_by_its_outcome_and_leaves_one_line(error, outcome, level) -> None:
    bench = Bench(raising(error))
    with capture_logs() as logs:
        await bench.does(dispatched())
    found = await scraped(bench)
    assert found["prokos_tde_started_total", ""] == 1
    assert {name: value for name, value in found.items() if "ended" in name[0]} == {
        ("prokos_tde_ended_total", outcome): 1
    }
    assert found["prokos_tde_duration_seconds_count", ""] == 1
    assert found["prokos_tde_running", ""] == 0
    (line,) = [entry for entry in logs if entry.get("job") == PARENT]
    assert (line["event"], line["log_level"], line["outcome"]) == ("task ended", level, outcome)
    tags = (line["executor"], line["process"], line["instance"], line["element"], line["tde"])
    assert tags == ("payer", "orders", 100, "Pay", 950)
    assert line["seconds"] >= 0
    assert error is None or str(line["message"]) in str(error) or "KeyError" in line["message"]


async def test_an_attempt_whose_task_ended_before_its_report_is_counted_as_gone() -> None:
    bench = Bench(raising(None))
    bench.engine.refusals["complete", PARENT] = NotFoundError("no such job")
    with capture_logs() as logs:
        await bench.does(dispatched())
    assert (await scraped(bench))["prokos_tde_ended_total", "gone"] == 1
    (line,) = [entry for entry in logs if entry.get("job") == PARENT and entry["event"] in LAST_LINES]
    assert line["event"] == "attempt stopped"


async def test_a_tde_that_a_process_called_itself_is_logged_as_the_step_that_it_is() -> None:
    bench = Bench(raising(None))
    with capture_logs() as logs:
        await bench.does(called({"amount": 3}, element="Execute"))
    (line,) = [entry for entry in logs if entry["event"] == "task ended"]
    tags = ("process", "instance", "element", "job", "tde")
    assert [line[tag] for tag in tags] == ["tde-payer", 950, "Execute", TDE, 950]


@pytest.mark.parametrize(("retries", "outcome"), [(2, "failed"), (1, "incident")])
async def test_the_last_attempt_of_a_task_counts_as_an_incident(retries, outcome) -> None:
    for one in (dispatched(tagged=task(PARENT, retries=retries)), called(retries=retries)):
        bench = Bench(raising(RetryableFailure("down")))
        await bench.does(one)
        assert (await scraped(bench))["prokos_tde_ended_total", outcome] == 1


async def test_attempts_that_run_are_in_flight() -> None:
    bench = Bench(hang)
    bench.engine.offer(dispatched(), replace(dispatched(tagged=task(8)), key=TDE + 1))
    async with bench.running(grace=0.01):
        await wait_until(lambda: len(bench.executor.inputs) == 2)
        found = await scraped(bench)
        assert (found["prokos_tde_running", ""], found["prokos_tde_started_total", ""]) == (2, 2)
    found = await scraped(bench)
    assert (found["prokos_tde_running", ""], found["prokos_tde_ended_total", "stopped"]) == (0, 2)


@pytest.mark.usefixtures("renewed_often")
@pytest.mark.parametrize(
    ("key", "error", "outcome"), [(PARENT, None, "gone"), (TDE, RejectedError("it is not active"), "stopped")]
)
async def test_attempts_that_are_given_up_are_counted_and_logged(key, error, outcome) -> None:
    bench = Bench(hang)
    if error is None:
        bench.engine.gone.add(key)
    else:
        bench.engine.refusals["extend", key] = error
    with capture_logs() as logs:
        await bench.does(dispatched(), until=lambda: "cancelled" in bench.executor.life)
    assert (await scraped(bench))["prokos_tde_ended_total", outcome] == 1
    (line,) = [entry for entry in logs if entry.get("job") == PARENT]
    assert line["event"] == "attempt stopped"
    assert line["reason"]


async def test_no_label_holds_anything_of_a_task() -> None:
    bench = Bench(raising(BusinessError("DECLINED-4711", "no money")))
    await bench.does(dispatched({"customer": "ada-4711"}))
    assert all("4711" not in part for name in await scraped(bench) for part in name)
