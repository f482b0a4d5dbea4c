"""Processes whose authors did not know ProkOS, served unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.conftest import Broker
from engine.devsystem import DevSystem
from prokos.engine import EngineClient, Job

PROCESSES = Path(__file__).parents[3] / "shared" / "data" / "processes"
EXECUTORS = Path(__file__).parent / "foreign"

pytestmark = pytest.mark.skipif(not PROCESSES.is_dir(), reason=f"the processes of others are not in {PROCESSES}")


@pytest.fixture(scope="module")
def dev(engine_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevSystem]:
    with DevSystem(tmp_path_factory.mktemp("foreign"), [PROCESSES, EXECUTORS], engine=engine_address) as system:
        yield system


async def take_job(engine: EngineClient, job_type: str) -> Job:
    """Wait for a job, as a worker of others would."""
    jobs = await engine.activate_jobs(job_type, worker="person", limit=1, lease=60, wait=60)
    assert jobs, f"no job of type {job_type}"
    return jobs[0]


def test_short_path_of_the_ten_task_process(dev: DevSystem) -> None:
    variables = dev.run_process("benchmark_10_jobtypes", {"var2": False})
    assert variables["done"] == ["task1", "task2", "task3"]


def test_long_path_of_the_ten_task_process_with_its_timers(dev: DevSystem, broker: Broker) -> None:
    instance = dev.json("run", "benchmark_10_jobtypes", "--no-wait", "--var", "var2=true")["instance"]
    dev.wait_for_task(instance=instance, element="task3", state="completed")
    broker.advance(61)
    dev.wait_for_task(instance=instance, element="task6", state="completed")
    broker.advance(61)
    dev.wait_for_task(instance=instance, element="task10", state="completed")
    done = [task["element"] for task in dev.tasks(instance=instance)]
    assert done == [f"task{number}" for number in range(1, 11)]
    assert {task["process"] for task in dev.tasks(instance=instance)} == {"benchmark_10_jobtypes"}


async def test_customer_onboarding_with_a_person_who_approves(dev: DevSystem, engine: EngineClient) -> None:
    arguments = ["--var", "customerName=bernd", "--var", "customerEmail=bernd@example.com"]
    instance = dev.json("run", "customer-onboarding", "--no-wait", *arguments)["instance"]
    # ProkOS leaves the person's job alone.
    job = await take_job(engine, "io.camunda.zeebe:userTask")
    assert str(job.process_instance_key) == instance
    assert job.variables["score"] == 80
    await engine.complete_job(job.key, {"automaticProcessing": True})
    dev.wait_for_task(instance=instance, element="TaskCreateCustomerInCrm", state="completed")
    assert not dev.tasks(jobType="io.camunda.zeebe:userTask")


async def test_ticket_booking_waits_for_its_payment(dev: DevSystem, engine: EngineClient) -> None:
    instance = dev.json("run", "ticket-booking", "--no-wait", "--var", "seats=2")["instance"]
    dev.wait_for_task(instance=instance, element="Activity_0lox1kf", state="completed")
    dev.run("publish", "msg-payment-received", "--key", f"payment-{instance}", "--var", 'paymentConfirmationId="c-1"')
    task = dev.wait_for_task(instance=instance, element="Activity_0etdda4", state="completed")
    assert task["executor"] == "ticket-generation"


def test_ticket_booking_without_free_seats_takes_the_error_path(dev: DevSystem) -> None:
    variables = dev.run_process("ticket-booking", {"seats": 9})
    assert "reservationId" not in variables
    assert dev.wait_for_task(element="Activity_1g89uec", state="error")["message"] == "only 8 seats are free"
