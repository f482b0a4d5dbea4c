from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

CHAOS = Path(__file__).parents[3] / "hack" / "chaos.py"


def test_a_short_campaign_of_random_faults_loses_nothing(tmp_path: Path) -> None:
    seed = os.environ.get("PROKOS_FAULT_SEED", str(random.SystemRandom().randrange(10**6)))
    command = [sys.executable, str(CHAOS), "--seconds", "20", "--seed", seed, "--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
