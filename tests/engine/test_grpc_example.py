"""The example `grpc`, run as its README says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.devsystem import DevSystem

EXAMPLE = Path(__file__).parents[2] / "examples" / "grpc"


@pytest.fixture(scope="module")
def dev(engine_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevSystem]:
    service = [sys.executable, str(EXAMPLE / "parcel_service.py")]
    with subprocess.Popen(service, stdout=subprocess.PIPE, text=True) as carrier:
        try:
            assert carrier.stdout is not None
            assert "listens on" in carrier.stdout.readline()
            with DevSystem(tmp_path_factory.mktemp("grpc-example"), [EXAMPLE], engine=engine_address) as system:
                yield system
        finally:
            carrier.terminate()


def test_a_parcel_is_sent_once_although_the_carrier_is_away_now_and_then(dev: DevSystem) -> None:
    numbers = []
    for _ in range(3):
        variables = dev.run_process("parcel", {"parcel": {"to": "Ada", "kilograms": 2.5}})
        assert variables["cents"] == "650"
        assert [station["place"] for station in variables["stations"]] == ["the counter", "the depot", "the van"]
        numbers.append(variables["number"])
    assert numbers == ["P-1", "P-2", "P-3"]


def test_a_parcel_that_is_too_heavy_is_a_business_error(dev: DevSystem) -> None:
    variables = dev.run_process("parcel", {"parcel": {"to": "Bob", "kilograms": 31}})
    assert variables["problem"] == "31 kg is too heavy"
