"""The grpc example, and the service that it calls."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from prokos.processes import check_manifests
from prokos.resources import TaskExecutor
from prokos.tde import BusinessError, Context, RetryableFailure
from prokos.tde.contract import Environment
from prokos.tde.grpc.executor import GrpcExecutor

if TYPE_CHECKING:
    from collections.abc import Iterator

GRPC = Path(__file__).parents[2] / "examples" / "grpc"


def test_the_grpc_example_has_no_errors_and_no_warnings() -> None:
    assert list(check_manifests([GRPC]).problems) == []


@contextlib.contextmanager
def running_carrier() -> Iterator[str]:
    argv = [sys.executable, str(GRPC / "parcel_service.py"), "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


async def attempts(address: str, name: str, *given: tuple[str, dict[str, Any]]) -> list[Any]:
    """What an executor of the example makes of some attempts, each a key and an input."""
    (found,) = [one.spec.grpc for one in check_manifests([GRPC]).loaded.only(TaskExecutor) if one.metadata.name == name]
    assert found is not None
    executor = GrpcExecutor(found.model_copy(update={"address": address}), Environment(name, GRPC, 1))
    await executor.start()
    outcomes: list[Any] = []
    for key, data in given:
        context = Context(key, timedelta(seconds=30), structlog.get_logger())
        try:
            outcomes.append(await executor.execute(data, context))
        except (BusinessError, RetryableFailure) as failure:
            outcomes.append(failure)
    await executor.close()
    return outcomes


async def test_the_carrier_takes_a_parcel_once_and_refuses_heavy_ones() -> None:
    light, heavy = {"parcel": {"to": "Ada", "kilograms": 2.5}}, {"parcel": {"to": "Bob", "kilograms": 31}}
    with running_carrier() as address:
        sent, away, again, refused = await attempts(
            address, "parcels", ("1", light), ("1", light), ("1", light), ("2", heavy)
        )
        assert sent == again == {"number": "P-1", "cents": "650"}
        assert isinstance(away, RetryableFailure)
        assert isinstance(refused, BusinessError)
        assert (refused.code, refused.variables["message"]) == ("NOT_TAKEN", "31 kg is too heavy")
        (tracked,) = await attempts(address, "tracking", ("3", {"number": "P-1"}))
        assert tracked == {
            "stations": [
                {"place": "the counter"},  # a number that is 0 is left out
                {"place": "the depot", "hour": "1"},
                {"place": "the van", "hour": "2"},
            ]
        }
