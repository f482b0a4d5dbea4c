from __future__ import annotations

import pytest
from hypothesis import settings

# A busy machine is no reason for a property to fail.
settings.register_profile("prokos", deadline=None)
settings.load_profile("prokos")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
