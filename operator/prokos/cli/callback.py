"""Bringing the results of long calls: one from the command line, or all that services send over HTTP."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from prokos.cli.output import FAILED, INVALID, print_error, print_note
from prokos.cli.run import open_client
from prokos.cli.running import connection_or_exit
from prokos.engine import EngineClient, EngineError, PayloadTooLargeError
from prokos.resources.names import CALLBACK_MESSAGE
from prokos.tde import BusinessError, FatalFailure, RetryableFailure
from prokos.tde.callback import CALLBACK_KEPT, CALLBACK_VARIABLE, genuine, is_token, read_callback
from prokos.tde.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from aiohttp import web

LONGEST_CALLBACK = 2_000_000
"""Bytes a callback may have; the engine takes no more than about as many."""

RETRY_AFTER = "5"
"""Seconds after which a service may try again while the engine is away."""


async def publish_callback(client: EngineClient, token: str, callback: dict[str, Any]) -> None:
    """Hand a callback to the engine; raises `EngineError`s."""
    await client.publish_message(CALLBACK_MESSAGE, token, {CALLBACK_VARIABLE: callback}, ttl=CALLBACK_KEPT)


def problem_with(callback: dict[str, Any]) -> str | None:
    """Why a callback could not be used; None when it can."""
    try:
        read_callback(callback)
    except BusinessError:
        return None
    except RetryableFailure:
        return None
    except FatalFailure as failure:
        final = isinstance(callback.get("failure"), dict) and callback["failure"].get("retryable") is False
        return None if final else str(failure)
    return None


async def send_callback(token: str, callback: dict[str, Any], state: Path | None) -> int:
    """`prokos callback`."""
    if not is_token(token):
        print_error(f"{token!r} is no token of a callback; the service got it with the call")
        return INVALID
    async with open_client(connection_or_exit(state)) as client:
        try:
            await publish_callback(client, token, callback)
        except (EngineError, ValueError) as error:
            print_error(str(error))
            return FAILED
    print_note(f"published {CALLBACK_MESSAGE} for task {token.partition('-')[0]}, kept for {CALLBACK_KEPT:g} s")
    return 0


def build_receiver(client: EngineClient, secrets: Sequence[str]) -> web.Application:
    """The HTTP API for services: `POST /TOKEN`, `POST /TOKEN/error`, `POST /TOKEN/failure`, each with JSON.

    Answers 202 when the engine has it, 404 for a token that is none, 400 for what is no callback, 413 for one that is
    too large, and 503 while the engine is away, so that a service that repeats what was not taken loses nothing.
    """
    from aiohttp import web

    async def receive(request: web.Request) -> web.Response:
        token, kind = request.match_info["token"], request.match_info.get("kind", "result")
        if not is_token(token) or not genuine(token, secrets):
            raise web.HTTPNotFound(text="no such callback\n")
        try:
            callback = {kind: parse_json(await request.read() or b"null")}
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"the body is not JSON: {error}\n") from None
        if problem := problem_with(callback):
            raise web.HTTPBadRequest(text=f"{problem}\n")
        try:
            await publish_callback(client, token, callback)
        except (PayloadTooLargeError, ValueError) as error:
            raise web.HTTPBadRequest(text=f"the engine does not take it: {error}\n") from error
        except EngineError as error:
            raise web.HTTPServiceUnavailable(text="try again\n", headers={"Retry-After": RETRY_AFTER}) from error
        return web.Response(status=202)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application(client_max_size=LONGEST_CALLBACK)
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.post("/{token}", receive),
            web.post("/{token}/{kind:error|failure}", receive),
        ]
    )
    return app


async def receive_callbacks(listen: str, secrets: Sequence[str], state: Path | None) -> int:
    """`prokos receive`: take callbacks over HTTP until SIGTERM or SIGINT."""
    from aiohttp import web

    host, _, port = listen.rpartition(":")
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with open_client(connection_or_exit(state)) as client:
        runner = web.AppRunner(build_receiver(client, secrets), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host.strip("[]"), int(port)).start()
            bound = runner.addresses[0]
            print_note(f"takes callbacks at http://{bound[0]}:{bound[1]}/TOKEN")
            await stop.wait()
        except OSError as error:
            print_error(f"cannot listen on {listen}: {error.strerror}")
            return FAILED
        finally:
            await runner.cleanup()
    return 0
