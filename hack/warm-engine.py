"""Install the engine and make what lets it start in half the time: `hack/warm-engine.py`, before many starts."""

from __future__ import annotations

import asyncio
import sys

from prokos.engine.distribution import EngineSetupError, ensure_distribution
from prokos.engine.startup_cache import ensure_startup_cache

try:
    ensure_distribution()
    asyncio.run(ensure_startup_cache())
except EngineSetupError as error:
    sys.exit(f"the engine cannot be prepared: {error}")
