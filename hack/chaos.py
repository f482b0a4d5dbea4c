"""Random faults on a running system, then a check of what was executed: `hack/chaos.py --seconds 600 --seed 1`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from engine.faults.chaos import run_campaign


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long faults come; then everything settles")
    parser.add_argument("--seed", type=int, default=None, help="seed of the faults; by default a new one")
    parser.add_argument("--directory", type=Path, default=None, help="where logs and ledger are kept")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    if arguments.directory is not None:
        arguments.directory.mkdir(parents=True, exist_ok=True)
        return run_campaign(arguments.directory, seed, arguments.seconds)
    directory = Path(tempfile.mkdtemp(prefix="prokos-chaos-"))
    return run_campaign(directory, seed, arguments.seconds)


if __name__ == "__main__":
    sys.exit(main())
