"""The operator: `python -m prokos.k8s`.

It watches the namespaces in `PROKOS_WATCH_NAMESPACES` (comma-separated; all of them if it is empty), and answers
`/healthz` on port 8080. `PROKOS_SYSTEM_IMAGE` and `PROKOS_WORKER_IMAGE` are the images it makes pods of.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, cast

import kopf

from prokos.engine.nesting import allow_deep_variables
from prokos.engine.service import stop_signals
from prokos.k8s.handlers import FINALIZER, Operator, register
from prokos.k8s.home import Images
from prokos.k8s.names import STATUS_PORT
from prokos.kube import KubeError, open_client
from prokos.logs import configure_logging

WATCH = 300
"""Seconds after which kopf opens its watches anew: a connection that died silently is noticed then."""


def build_settings(*, clusterwide: bool) -> kopf.OperatorSettings:
    """Settings of kopf: no bookkeeping while a resource lives, events only where we make one, a finalizer of ours."""
    settings = kopf.OperatorSettings()
    settings.posting.loggers = False
    settings.persistence.finalizer = FINALIZER
    # While a resource goes, kopf touches it to look again; the status of ours keeps nothing that it does not know.
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="prokos.io")
    settings.peering.standalone = True
    # Looking for new namespaces and CRDs takes rights in the whole cluster.
    settings.scanning.disabled = not clusterwide
    settings.watching.server_timeout = WATCH
    settings.watching.client_timeout = WATCH + 30
    return settings


async def serve() -> None:
    """Run until SIGTERM or SIGINT."""
    try:
        images = Images(os.environ["PROKOS_SYSTEM_IMAGE"], os.environ["PROKOS_WORKER_IMAGE"])
    except KeyError as error:
        raise SystemExit(f"environment variable {error.args[0]} is not set: which image shall pods have?") from None
    namespaces = [name for name in os.environ.get("PROKOS_WATCH_NAMESPACES", "").split(",") if name]
    async with open_client("prokos-operator") as client:
        registry = kopf.OperatorRegistry()
        register(registry, Operator(client, images))
        await kopf.operator(
            registry=registry,
            settings=build_settings(clusterwide=not namespaces),
            # By itself kopf asks for the user's name, which a number without an account has not.
            identity=cast("Any", "prokos-operator"),
            namespaces=namespaces,
            clusterwide=not namespaces,
            standalone=True,
            stop_flag=stop_signals(),
            liveness_endpoint=f"http://0.0.0.0:{STATUS_PORT}/healthz",
        )


def main() -> None:
    """Run; no cluster is one clear line."""
    configure_logging()
    allow_deep_variables()
    try:
        asyncio.run(serve())
    except KubeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
