"""A worker written by hand, as the documentation of pyzeebe shows it, in a process of its own: what ProkOS is compared
with.

    python -m benchmarks.plain_worker HOST:PORT RECORDS JOB_TYPE...

It does what `benchmarks.recording` does, for the jobs of processes that ProkOS does not know. (pyzeebe reads the
annotations of a task's function, so they must not be put off with `from __future__ import annotations`.)
"""

import asyncio
import signal
import sys
from pathlib import Path

from pyzeebe import Job, ZeebeWorker, create_insecure_channel

from benchmarks.records import RecordWriter


async def main(address: str, file: Path, job_types: list[str]) -> None:
    """Work until SIGTERM."""
    records = RecordWriter(file)
    worker = ZeebeWorker(create_insecure_channel(address), stream_enabled=True, max_connection_retries=-1)

    async def work(job: Job, number: int) -> dict[str, int]:
        records.write(number, job.element_id)
        return {"done": number}

    for job_type in job_types:
        worker.task(task_type=job_type)(work)  # type: ignore[arg-type]  # its types are for the use as a decorator
    working = asyncio.create_task(worker.work())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    await asyncio.wait([working])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
