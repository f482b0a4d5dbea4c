from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# A busy machine is no reason for a property to fail.
settings.register_profile("prokos", deadline=None)
settings.load_profile("prokos")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
async def one_event_loop(anyio_backend: str) -> AsyncIterator[None]:
    """Keep one event loop for all tests of a session, as every program has one.

    grpc has one completion queue for all loops of a process. What ends after its loop was closed is delivered in
    whichever loop reads the queue next, and fails the test that happens to run there.
    """
    yield  # noqa: PT022 - a fixture that returns lets go of the loop at once
