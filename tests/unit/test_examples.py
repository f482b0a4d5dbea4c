"""The examples and the executors for processes of others: valid, and the services they talk to keep their word."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest
import structlog

from prokos.processes import check_manifests
from prokos.resources import ProkOS, ProkOSSpec, TaskExecutor
from prokos.tde import BusinessError, Context, RetryableFailure
from prokos.tde.contract import Environment
from prokos.tde.grpc.executor import GrpcExecutor

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
ORDER = ROOT / "examples" / "order"
ORDERS = sorted((ORDER / "orders").glob("*.json"))
GRPC = ROOT / "examples" / "grpc"
SERVICE = ORDER / "shop_service.py"
FOREIGN = ROOT / "tests" / "engine" / "foreign"
PROCESSES = ROOT.parent / "shared" / "data" / "processes"

BPMN = "{http://www.omg.org/spec/BPMN/20100524/MODEL}"
BPMNDI = "{http://www.omg.org/spec/BPMN/20100524/DI}"
DC = "{http://www.omg.org/spec/DD/20100524/DC}"
DI = "{http://www.omg.org/spec/DD/20100524/DI}"
ZEEBE = "{http://camunda.org/schema/zeebe/1.0}"


def executor(name: str) -> TaskExecutor:
    (found,) = check_manifests([ORDER / "executors" / f"{name}.yaml"]).loaded.only(TaskExecutor)
    return found


# --- manifests -----------------------------------------------------------------------------------------------


def test_order_example_has_no_errors_and_no_warnings() -> None:
    checked = check_manifests([ORDER])
    assert list(checked.problems) == []
    processes = [process for definition in checked.definitions for process in definition.bpmn.processes]
    assert [process.process_id for process in processes] == ["order"]
    assert {found.metadata.name for found in checked.loaded.only(TaskExecutor)} == {
        "orders-db",
        "payments",
        "pricing",
        "release-stock",
        "reserve-stock",
    }


def test_order_example_works_with_the_postgres_executor_in_place_of_the_sqlite_one() -> None:
    others = [file for file in (ORDER / "executors").glob("*.yaml") if file.name != "orders-db.yaml"]
    checked = check_manifests([ORDER / "order.bpmn", ORDER / "prokos.yaml", *others, ROOT / "examples/order-postgres"])
    assert list(checked.problems) == []
    (saving,) = [found for found in checked.loaded.only(TaskExecutor) if found.metadata.name == "orders-db"]
    assert saving.spec.sql is not None
    assert saving.spec.sql.url_secret == "orders-database"
    assert [secret.env for secret in saving.spec.secrets] == ["ORDERS_DATABASE_URL"]


def test_both_order_databases_are_asked_the_same() -> None:
    sqlite = executor("orders-db").spec
    (postgres,) = check_manifests([ROOT / "examples/order-postgres"]).loaded.only(TaskExecutor)
    assert sqlite.accepts == postgres.spec.accepts
    assert sqlite.sql is not None
    assert postgres.spec.sql is not None
    names = [re.findall(r":(\w+)", settings.statement) for settings in (sqlite.sql, postgres.spec.sql)]
    assert names[0] == names[1]


def test_the_container_example_has_no_errors_and_no_warnings() -> None:
    checked = check_manifests([ROOT / "examples" / "container"])
    assert list(checked.problems) == []
    (found,) = checked.loaded.only(TaskExecutor)
    assert found.spec.description.endswith(".")


def test_settings_of_the_system_are_the_defaults() -> None:
    (system,) = check_manifests([ORDER / "prokos.yaml"]).loaded.only(ProkOS)
    written = system.spec.model_dump(exclude_unset=True)
    assert {"engine", "pdo", "router"} <= written.keys()
    default = ProkOSSpec()
    assert (system.spec.pdo, system.spec.router) == (default.pdo, default.router)


def test_every_executor_says_what_it_does() -> None:
    for found in check_manifests([ORDER, FOREIGN]).loaded.only(TaskExecutor):
        assert found.spec.description.endswith("."), found.metadata.name


@pytest.mark.parametrize("manifest", sorted(FOREIGN.glob("*.yaml")), ids=lambda file: file.stem)
def test_executors_serve_every_task_of_a_process_of_others(manifest: Path) -> None:
    process = PROCESSES / f"{manifest.stem}.bpmn"
    if not process.is_file():
        pytest.skip(f"{process.name} is not beside the checkout, in ../shared/data/processes")
    checked = check_manifests([manifest, process])
    assert list(checked.problems) == []
    assert len(checked.definitions) == 1


# --- what the executors of the order do ----------------------------------------------------------------------


@pytest.mark.parametrize("file", ORDERS, ids=lambda file: file.stem)
def test_orders_fit_the_pricing(file: Path) -> None:
    schema = executor("pricing").spec.input_schema
    assert schema is not None
    jsonschema_rs.validator_for(schema).validate(json.loads(file.read_text()))


@pytest.mark.parametrize(
    ("items", "total"),
    [
        ([(1, 2.5)], 2.5),
        ([(3, 0.1), (1, 0.2)], 0.5),
        ([(1, 1.005)], 1.01),
        ([(3, 4.95), (1, 89.9)], 104.75),
    ],
)
def test_pricing_adds_up_in_decimals(items: list[tuple[int, float]], total: float) -> None:
    script = executor("pricing").spec.script
    assert script is not None
    assert script.source is not None
    names: dict[str, Any] = {}
    exec(compile(script.source, "pricing", "exec"), names)
    order = {"items": [{"sku": "x", "quantity": quantity, "unitPrice": price} for quantity, price in items]}
    assert names["main"](order) == {"total": total}


def test_an_order_is_saved_once_however_often_it_is_tried() -> None:
    sql = executor("orders-db").spec.sql
    assert sql is not None
    order = {"orderId": "A-1", "customer": "Ada", "items": "[]", "total": 2.5, "paymentId": "P-1"}
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for _ in range(2):
            for statement in sql.setup:
                connection.execute(statement)
        written = [connection.execute(sql.statement, order).rowcount for _ in range(2)]
        assert written == [1, 0]
        assert connection.execute("SELECT order_id, total FROM orders").fetchall() == [("A-1", 2.5)]


# --- the diagram ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of(cls, shape: ET.Element) -> Box:
        bounds = shape.find(f"{DC}Bounds")
        assert bounds is not None
        x, y, width, height = (float(bounds.attrib[key]) for key in ("x", "y", "width", "height"))
        return cls(x, y, x + width, y + height)

    def touches_border(self, x: float, y: float) -> bool:
        inside = self.left <= x <= self.right and self.top <= y <= self.bottom
        return inside and (x in (self.left, self.right) or y in (self.top, self.bottom))

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


class Diagram:
    """The order's BPMN as these tests look at it."""

    def __init__(self) -> None:
        self.root = ET.fromstring((ORDER / "order.bpmn").read_text("utf-8"))
        process = self.root.find(f"{BPMN}process")
        assert process is not None
        self.process = process
        connecting = (f"{BPMN}sequenceFlow", f"{BPMN}association")
        self.links = {link.attrib["id"]: link for tag in connecting for link in process.iter(tag)}
        self.nodes = {
            node.attrib["id"]: node for node in process if "id" in node.attrib and node.attrib["id"] not in self.links
        }
        self.shapes = {shape.attrib["bpmnElement"]: Box.of(shape) for shape in self.root.iter(f"{BPMNDI}BPMNShape")}
        self.edges = {
            edge.attrib["bpmnElement"]: [
                (float(p.attrib["x"]), float(p.attrib["y"])) for p in edge.iter(f"{DI}waypoint")
            ]
            for edge in self.root.iter(f"{BPMNDI}BPMNEdge")
        }

    def definition(self, node: str) -> ET.Element:
        found = self.nodes[node].find(f"{BPMN}extensionElements/{ZEEBE}taskDefinition")
        assert found is not None
        return found


@pytest.fixture(name="diagram", scope="module")
def _diagram() -> Diagram:
    return Diagram()


def test_everything_of_the_order_is_drawn(diagram: Diagram) -> None:
    assert set(diagram.shapes) == set(diagram.nodes)
    assert set(diagram.edges) == set(diagram.links)


def test_shapes_overlap_only_where_an_event_sits_on_its_task(diagram: Diagram) -> None:
    overlapping = {
        frozenset((one, other))
        for (one, box), (other, other_box) in itertools.combinations(diagram.shapes.items(), 2)
        if box.meets(other_box)
    }
    assert overlapping == {
        frozenset((name, node.attrib["attachedToRef"]))
        for name, node in diagram.nodes.items()
        if "attachedToRef" in node.attrib
    }


def test_links_are_drawn_at_right_angles_from_border_to_border_and_cross_no_shape(diagram: Diagram) -> None:
    for name, link in diagram.links.items():
        points = diagram.edges[name]
        assert diagram.shapes[link.attrib["sourceRef"]].touches_border(*points[0]), name
        assert diagram.shapes[link.attrib["targetRef"]].touches_border(*points[-1]), name
        for (x, y), (x2, y2) in itertools.pairwise(points):
            assert x == x2 or y == y2, name
            segment = Box(min(x, x2), min(y, y2), max(x, x2), max(y, y2))
            assert [shape for shape, box in diagram.shapes.items() if box.meets(segment)] == [], name


def test_labels_cover_no_shape_and_no_line(diagram: Diagram) -> None:
    segments = [
        Box(min(x, x2), min(y, y2), max(x, x2), max(y, y2))
        for points in diagram.edges.values()
        for (x, y), (x2, y2) in itertools.pairwise(points)
    ]
    for label in diagram.root.iter(f"{BPMNDI}BPMNLabel"):
        box = Box.of(label)
        assert [shape for shape, other in diagram.shapes.items() if box.meets(other)] == []
        assert [segment for segment in segments if box.meets(segment)] == []


def test_process_and_tasks_have_a_name_and_say_why_they_are_there(diagram: Diagram) -> None:
    tasks = [node for node in diagram.nodes.values() if node.tag == f"{BPMN}serviceTask"]
    assert len(tasks) == 5
    for element in [diagram.process, *tasks]:
        assert element.attrib["name"]
        assert element.findtext(f"{BPMN}documentation")


def test_a_declined_payment_releases_what_was_reserved(diagram: Diagram) -> None:
    assert diagram.nodes["ReleaseGoods"].attrib["isForCompensation"] == "true"
    association = diagram.links["UndoReservation_to_ReleaseGoods"].attrib
    assert (association["sourceRef"], association["targetRef"]) == ("UndoReservation", "ReleaseGoods")
    assert diagram.nodes["UndoReservation"].attrib["attachedToRef"] == "ReserveGoods"
    # Zeebe 8.6.0 needs the ids.
    compensations = list(diagram.process.iter(f"{BPMN}compensateEventDefinition"))
    assert len(compensations) == 2
    assert all("id" in compensation.attrib for compensation in compensations)


def test_charging_has_the_attempts_that_a_flaky_service_needs(diagram: Diagram) -> None:
    assert diagram.definition("ChargeCard").attrib == {"type": "charge-card", "retries": "3"}


# --- the shop service ----------------------------------------------------------------------------------------


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


# --- the parcel service of the grpc example ------------------------------------------------------------------


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
