"""The service that the order example calls keeps its word."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ORDER = Path(__file__).parents[2] / "examples" / "order"
SERVICE = ORDER / "shop_service.py"


@dataclass(frozen=True)
class Service:
    """A running shop service."""

    address: str

    def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, raw: bytes | None = None
    ) -> tuple[int, Any]:
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, method=method)
        if key is not None:
            request.add_header("Idempotency-Key", key)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                status, content = response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                status, content = error.code, error.read()
        return status, json.loads(content) if content else None

    def charge(self, order: str, amount: float, key: str | None = None) -> tuple[int, Any]:
        return self.call("POST", "/payments", {"orderId": order, "amount": amount}, key=key)


@contextlib.contextmanager
def running_service(*options: str) -> Iterator[Service]:
    argv = [sys.executable, str(SERVICE), "0", "--quiet", *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Service(process.stdout.readline().split()[-1])
        finally:
            process.terminate()


@pytest.fixture(name="service")
def _service() -> Iterator[Service]:
    with running_service() as service:
        yield service


def test_service_charges_and_lists_payments(service: Service) -> None:
    payment = {"paymentId": "P-1", "orderId": "A-1", "amount": 19.9}
    assert service.charge("A-1", 19.9) == (201, payment)
    assert service.call("GET", "/payments") == (200, [payment])


def test_service_declines_amounts_over_the_limit(service: Service) -> None:
    assert service.charge("A-1", 1000)[0] == 201
    status, body = service.charge("A-2", 1000.01)
    assert status == 402
    assert body == {"reason": "1000.01 is more than the card's limit of 1000"}
    assert [payment["orderId"] for payment in service.call("GET", "/payments")[1]] == ["A-1"]


def test_service_answers_the_same_idempotency_key_with_the_same_answer(service: Service) -> None:
    first = service.charge("A-1", 5, key="1-3")
    assert first[0] == 201
    assert service.charge("A-1", 5, key="1-3") == first
    declined = service.charge("A-2", 5000, key="2-3")
    assert service.charge("A-2", 1, key="2-3") == declined
    assert len(service.call("GET", "/payments")[1]) == 1


def test_service_charges_an_order_once_whatever_the_key(service: Service) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: service.charge("A-1", 5, key=f"1-{number}"), range(16)))
    assert sorted(status for status, _ in answers) == [*([200] * 15), 201]
    assert len(service.call("GET", "/payments")[1]) == 1
    assert service.charge("A-1", 6, key="other")[0] == 409


def test_flaky_service_is_away_once_for_each_order() -> None:
    with running_service("--flaky") as service:
        for order in ("A-1", "A-2"):
            assert service.charge(order, 5, key=f"{order}-3")[0] == 503
            # Nothing was decided under the key, so the same attempt may come again.
            assert service.charge(order, 5, key=f"{order}-3")[0] == 201
        assert len(service.call("GET", "/payments")[1]) == 2


def test_service_reserves_and_releases(service: Service) -> None:
    reservation = {"orderId": "A/1 ä", "items": [{"sku": "x", "quantity": 1}]}
    assert service.call("POST", "/reservations", reservation) == (201, {"reservationId": "R-A/1 ä"})
    assert service.call("POST", "/reservations", reservation)[0] == 200
    assert service.call("GET", "/reservations") == (200, [reservation])
    for _ in range(2):
        assert service.call("DELETE", "/reservations/A%2F1%20%C3%A4") == (204, None)
    assert service.call("GET", "/reservations") == (200, [])


@pytest.mark.parametrize(
    ("method", "path", "raw", "status"),
    [
        ("POST", "/payments", b"", 400),
        ("POST", "/payments", b"{", 400),
        ("POST", "/payments", b"[]", 400),
        ("POST", "/payments", b"\xff", 400),
        ("POST", "/payments", b'{"amount": 5}', 400),
        ("POST", "/payments", b'{"orderId": "A-1"}', 400),
        ("POST", "/payments", b'{"orderId": "A-1", "amount": "5"}', 400),
        ("POST", "/payments", b'{"orderId": "A-1", "amount": true}', 400),
        ("POST", "/payments", b'{"orderId": "A-1", "amount": -1}', 400),
        ("POST", "/payments", b'{"orderId": "A-1", "amount": NaN}', 400),
        ("POST", "/reservations", b'{"orderId": "A-1", "items": []}', 400),
        ("POST", "/elsewhere", b"{}", 404),
        ("GET", "/", None, 404),
        ("DELETE", "/reservations", None, 404),
        ("DELETE", "/reservations/", None, 404),
        ("DELETE", "/payments/A-1", None, 404),
    ],
)
def test_service_refuses_what_it_does_not_take(
    service: Service, method: str, path: str, raw: bytes | None, status: int
) -> None:
    answer = service.call(method, path, raw=raw)
    assert answer[0] == status
    assert answer[1]["error"]
    assert service.call("GET", "/payments") == (200, [])


@pytest.mark.parametrize("program", ["shop_service.py", "demo.py"])
def test_says_in_one_line_that_the_port_is_taken(program: str) -> None:
    with socket.socket() as taken:
        # Connections that were closed a moment ago do not count as taking the port, neither here nor there. Where
        # another program listens already, that serves as well.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", 18181))
            taken.listen()
        environment = {name: value for name, value in os.environ.items() if name != "PORT"}
        argv = [sys.executable, str(ORDER / program)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "shop service: cannot listen on port 18181: Address already in use\n"
