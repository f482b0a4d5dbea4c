"""A model provider on loopback: speaks the chat completions protocol, and answers as it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Model:
    """A model provider that answers as it is told to."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.content: str | None = ""
        self.hangs = False
        self.error = "the server had an error"
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    def answers(self, executor: str, confidence: float = 0.9, reason: str = "it fits") -> None:
        self.content = json.dumps({"executor": executor, "confidence": confidence, "reason": reason})

    async def complete(self, request: web.Request) -> web.Response:
        self.requests.append(await request.json())
        self.keys.append(request.headers.get("Authorization"))
        if self.hangs:
            await asyncio.Event().wait()
        if self.status != 200:
            return web.json_response({"error": {"message": self.error, "type": "error"}}, status=self.status)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": self.content}}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "test", "choices": [choice]}
        return web.json_response({**answer, "usage": usage})

    def settings(self, **changes: Any) -> dict[str, Any]:
        return {"mode": "llm", "model": "openai/test", "endpoint": self.url, **changes}


@contextlib.asynccontextmanager
async def serving(model: Model) -> AsyncIterator[Model]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", model.complete)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    model.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield model
    finally:
        await runner.cleanup()
