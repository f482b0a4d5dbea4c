"""Figures of an embedded system: throughput, latency, memory, growth, soak. Run `python -m benchmarks.bench --help`.

`benchmarks.bench` compares dispatched tasks with a worker that is written by hand, `benchmarks.growth` looks at many
processes, many executors and a backlog, `benchmarks.soak` at an hour of steady work. All of them start a real
`prokos dev` with the class that the engine tests use, which is why `tests` is on the path.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
