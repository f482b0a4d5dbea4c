"""The registry of a process of its own, PDO or router: a directory, or a system of the cluster it runs in."""

from __future__ import annotations

import asyncio
import contextlib
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prokos.registry.files import FileRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from prokos.registry.store import Store


@asynccontextmanager
async def open_registry(environ: Mapping[str, str] = os.environ) -> AsyncIterator[Store]:
    """Open the registry that the environment names.

    `PROKOS_REGISTRY` is a directory. Else `PROKOS_SYSTEM_NAMESPACE`, `PROKOS_SYSTEM_NAME` and `PROKOS_SYSTEM_UID` name
    a ProkOS resource of the cluster.

    Raises:
        KeyError: The environment names none.
    """
    if directory := environ.get("PROKOS_REGISTRY"):
        yield FileRegistry(Path(directory))
        return
    from prokos.kube import open_client
    from prokos.registry.cluster import ClusterRegistry, SystemRef

    system = SystemRef(environ["PROKOS_SYSTEM_NAMESPACE"], environ["PROKOS_SYSTEM_NAME"], environ["PROKOS_SYSTEM_UID"])
    async with open_client("prokos-pdo") as client:
        registry = ClusterRegistry(client, system)
        following = asyncio.create_task(registry.run())
        try:
            ready = asyncio.create_task(registry.ready())
            await asyncio.wait([following, ready], return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
            yield registry
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
