"""`make demo`: one order through the whole system, with the services it needs, and nothing left behind.

    python demo.py [ORDER.json]

Starts the shop service, runs `prokos dev` with this directory's manifests on a state directory of its own, and shows
what the services and the order database have then. Returns the exit code of `prokos dev`. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

HERE = Path(__file__).resolve().parent
SHOP = "http://127.0.0.1:18181"
"""Where the executors of this example expect the shop service."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends this program: Ctrl-C, a polite kill, a terminal that is closed."""


@contextlib.contextmanager
def shop_service() -> Iterator[None]:
    """Run the shop service. It says itself why it cannot."""
    argv = [sys.executable, str(HERE / "shop_service.py"), "18181", "--quiet"]
    # Out of reach of Ctrl-C, which must not end it before the tasks that call it.
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as service:
        try:
            assert service.stdout is not None
            if not service.stdout.readline():
                raise SystemExit(service.wait())
            yield
        finally:
            service.terminate()


def run_prokos(state: Path, order: Path) -> int:
    """Run the order on the embedded system, which ends in order if this program shall end. Returns the exit code."""
    argv = [sys.executable, "-m", "prokos", "dev", str(HERE), "--state", str(state), "--run", "order", "--vars"]
    received = 0
    with subprocess.Popen([*argv, str(order)], start_new_session=True) as prokos:

        def pass_on(number: int, _: FrameType | None) -> None:
            nonlocal received
            received = number
            prokos.terminate()

        on_ending(pass_on)
        code = prokos.wait()
    on_ending(terminate)
    return 128 + received if received else code


def report(state: Path) -> None:
    """Say what the outside world knows of the order now."""
    print("\nwhat the outside world has:")
    for what, columns in (("payments", ("paymentId", "orderId", "amount")), ("reservations", ("orderId", "items"))):
        show(f"GET {SHOP}/{what}", [tuple(entry[column] for column in columns) for entry in get(f"/{what}")])
    show("SELECT * FROM orders", saved_orders(state / "work" / "orders-db" / "orders.db"))


def get(path: str) -> Any:
    """Ask the shop service."""
    with urllib.request.urlopen(SHOP + path, timeout=5) as response:
        return json.load(response)


def saved_orders(database: Path) -> list[tuple[Any, ...]]:
    """The rows of the order database."""
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT * FROM orders ORDER BY order_id").fetchall()


def show(title: str, rows: list[tuple[Any, ...]]) -> None:
    """Print rows under a title."""
    print(f"  {title}")
    for row in rows or [("nothing",)]:
        print("    " + "  ".join(value if isinstance(value, str) else json.dumps(value) for value in row))


def on_ending(handler: Callable[[int, FrameType | None], None]) -> None:
    """Choose what happens when this program shall end."""
    for number in ENDING:
        signal.signal(number, handler)


def terminate(number: int, _: FrameType | None) -> None:
    """End this program; what it started is ended on the way out."""
    raise SystemExit(128 + number)


def main() -> int:
    """Run the demonstration. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Run one order through the whole system.")
    default = HERE / "orders" / "small-order.json"
    parser.add_argument("order", nargs="?", type=Path, default=default, help="JSON file; %(default)s")
    order = parser.parse_args().order
    on_ending(terminate)
    # Outside the checkout; the engine may still be writing its last file when it is told to stop.
    with shop_service(), tempfile.TemporaryDirectory(prefix="prokos-demo-", ignore_cleanup_errors=True) as state:
        code = run_prokos(Path(state), order)
        if code == 0:
            report(Path(state))
    return code


if __name__ == "__main__":
    sys.exit(main())
