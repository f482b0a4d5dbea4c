"""What the executors of `benchmarks.kinds` do, written by hand into a pyzeebe worker: what each type is compared with.

    python -m benchmarks.plain_kinds HOST:PORT DIRECTORY HTTP_URL GRPC_ADDRESS

Connections are kept, as whoever writes such a worker would do it; a script gets a Python process of its own. (pyzeebe
reads the annotations of a task's function, so they must not be put off with `from __future__ import annotations`.)
"""

import asyncio
import json
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
from pyzeebe import ZeebeWorker, create_insecure_channel

from benchmarks.kinds import INSERT, METHOD, SCRIPT, TABLE
from unit.grpc_service import Payments

RUN_SCRIPT = f"import json, sys\n{SCRIPT}\nprint(json.dumps(main(json.load(sys.stdin))))"


async def main(address: str, directory: Path, url: str, grpc_address: str) -> None:
    """Work until SIGTERM."""
    worker = ZeebeWorker(create_insecure_channel(address), stream_enabled=True, max_connection_retries=-1)
    messages = Payments()
    channel = grpc.aio.insecure_channel(grpc_address)
    pay = channel.unary_unary(f"/{METHOD}", messages.charge.SerializeToString, messages.receipt.FromString)
    client = httpx.AsyncClient()
    database = sqlite3.connect(directory / "plain.db", check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(TABLE)
    writing = asyncio.Lock()

    async def in_python(number: int) -> dict[str, Any]:
        return {"done": number}

    async def in_a_script(number: int) -> Any:
        command = [sys.executable, "-I", "-c", RUN_SCRIPT]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        output, _ = await process.communicate(json.dumps({"number": number}).encode())
        return json.loads(output)

    async def over_http(number: int) -> Any:
        answer = await client.post(url, json={"number": number})
        answer.raise_for_status()
        return answer.json()

    async def by_container(number: int) -> Any:
        answer = await client.post(f"{url}execute", json={"input": {"number": number}})
        answer.raise_for_status()
        return answer.json()["output"]

    async def over_grpc(charge: dict[str, Any]) -> dict[str, Any]:
        receipt = await pay(messages.charge(cents=charge["cents"]), timeout=10)
        return {"paymentId": receipt.payment_id, "cents": str(receipt.cents)}

    def insert(number: int) -> int:
        with database:
            return database.execute(INSERT, {"number": number}).rowcount

    async def in_sql(number: int) -> dict[str, Any]:
        async with writing:
            return {"rowCount": await asyncio.to_thread(insert, number)}

    tasks = {
        "python": in_python,
        "script": in_a_script,
        "http": over_http,
        "grpc": over_grpc,
        "sql": in_sql,
        "container": by_container,
    }
    for kind, task in tasks.items():
        worker.task(task_type=f"plain-{kind}")(task)  # type: ignore[arg-type]  # its types are for the use as a decorator
    working = asyncio.create_task(worker.work())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    await asyncio.wait([working])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
