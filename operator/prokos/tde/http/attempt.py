"""One attempt of a task at an HTTP service: one call, or those of all pages, each repeated if the settings say so."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prokos.tde.callback import make_token
from prokos.tde.contract import AwaitCallback, BusinessError, FatalFailure, RetryableFailure
from prokos.tde.http.body import build_body
from prokos.tde.http.content import iterate_content, read_content
from prokos.tde.http.failures import ServiceFailure, connection_failures
from prokos.tde.http.pages import Pages
from prokos.tde.http.repeat import repeating
from prokos.tde.http.request import build_request, is_repeatable
from prokos.tde.http.response import (
    Answer,
    candidates,
    decide,
    describe_status,
    error_variables,
    file_output,
    provided_text,
    retry_after,
    to_output,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from prokos.resources.http_outcomes import StatusOutcome
    from prokos.resources.http_settings import HttpSettings
    from prokos.tde.contract import Context
    from prokos.tde.http.service import HttpService

EXCERPT = 300
"""Characters of an error response that go into the message."""

EXCERPT_READ = 10_000
"""Bytes of an error response that are read for it."""

LONGEST_MESSAGE = 1_000
"""Characters of a message or code that an answer provides."""

REPORTING = 0.1
"""Seconds of `spec.timeout`, but not more than a tenth of it, that are left to say what was waited for."""


class Attempt:
    """One attempt; what it raises is not yet cleared of secrets."""

    def __init__(self, settings: HttpSettings, service: HttpService, context: Context) -> None:
        self.settings = settings
        self.service = service
        self.context = context
        seconds = context.timeout.total_seconds()
        self.deadline = time.monotonic() + seconds - min(REPORTING, seconds / 10)

    async def run(self, data: dict[str, Any]) -> dict[str, Any]:
        """Make the call, or the calls of all pages, and turn the answer into variables."""
        settings = self.settings
        headers, fields = self._callback()
        files = self.service.files
        if files is None:
            body = build_body(settings, data, None, fields)
        else:  # a disk may be slow
            body = await asyncio.to_thread(build_body, settings, data, files, fields)
        request = build_request(settings, data, body, self.context.idempotency_key, headers)
        if settings.pagination is None:
            answer = await self._call(request, settings.max_response_bytes)
            return answer if isinstance(answer, dict) else to_output(answer)
        pages = Pages(settings.pagination, request, self.service.auth.excerpt)
        while pages.next is not None:
            answer = await self._call(pages.next, settings.max_response_bytes - pages.size)
            assert isinstance(answer, Answer)  # noqa: S101 - the settings make no files of pages
            pages.take(answer)
        whole = {"items": pages.items, "pages": pages.count}
        return whole if settings.result_variable is None else {settings.result_variable: whole}

    @property
    def _token(self) -> str:
        """The token of the task's callback."""
        callback = self.settings.callback
        assert callback is not None  # noqa: S101 - asked only with a callback
        return make_token(self.service.secrets[callback.secret], self.context.idempotency_key)

    def _callback(self) -> tuple[dict[str, str], dict[str, str]]:
        """The headers and body fields that tell the service where its result is awaited."""
        callback = self.settings.callback
        if callback is None:
            return {}, {}
        if self.context.task is None:
            raise FatalFailure(
                f"spec.http.callback: a process that calls tde-{self.service.name} itself cannot wait for a callback; "
                "give its task a job type that the executor accepts"
            )
        url = callback.url.replace("{token}", self._token)
        return (
            {callback.header: url} if callback.header else {},
            {} if callback.field is None else {callback.field: url},
        )

    async def judge_callback(self, response: httpx.Response) -> dict[str, Any]:
        """Turn a callback, put as a response, into variables."""
        answer = Answer(response, response.content, self.settings)
        rule = decide(candidates(response.status_code, self.settings), answer)
        if rule.outcome == "complete":
            return to_output(answer)
        if rule.outcome == "callback":
            raise FatalFailure("spec.http.outcomes: a callback cannot announce another callback")
        raise await self._refusal(rule, answer, "the callback came")

    async def _call(self, request: httpx.Request, limit: int) -> Answer | dict[str, Any]:
        repeatable = is_repeatable(request, self.settings.idempotency.header)
        async for attempt in repeating(self.settings.retry, self.deadline, repeatable=repeatable):
            with attempt:
                return await self._try(request, limit)
        raise AssertionError("unreachable: the last try returns or raises")

    async def _try(self, request: httpx.Request, limit: int) -> Answer | dict[str, Any]:
        call = f"{request.method} {request.url.copy_with(query=None)}"
        timeouts = self.settings.timeouts
        await self._wait_for_turn(call)
        longest = min(timeouts.total or self.context.timeout, self.context.timeout).total_seconds()
        seconds = min(longest, self.deadline - time.monotonic())
        read = timeouts.read.total_seconds() if timeouts.read is not None else seconds
        request.extensions["timeout"] = {
            "connect": timeouts.connect.total_seconds(),
            "read": read,
            "write": read,
            "pool": seconds,
        }
        breaker = self.service.breaker
        with breaker.watching() if breaker is not None else nullcontext(), connection_failures(call, longest):
            async with asyncio.timeout(seconds), self.service.client.send(request) as response:
                return await self._judge(call, response, limit)

    async def _wait_for_turn(self, call: str) -> None:
        if self.service.limiter is None:
            return
        try:
            async with asyncio.timeout(self.deadline - time.monotonic()):
                await self.service.limiter.acquire()
        except TimeoutError:
            raise RetryableFailure(f"{call}: not called, spec.http.rateLimit left no time for it") from None

    async def _judge(self, call: str, response: httpx.Response, limit: int) -> Answer | dict[str, Any]:
        settings = self.settings
        answered = f"{call} answered {describe_status(response)}"
        rules = candidates(response.status_code, settings)
        rule = rules[-1]
        content = b""
        if len(rules) == 1 and rule.outcome == "complete" and settings.response_format == "file":
            return await self._save(answered, response, iterate_content(response, limit))
        if len(rules) > 1 or rule.outcome in ("complete", "error") or rule.message_from is not None:
            try:
                content = await read_content(response, limit)
            except (RetryableFailure, FatalFailure) as failure:
                raise type(failure)(f"{answered}, but {failure}") from failure
        answer = Answer(response, content, settings)
        rule = decide(rules, answer)
        if rule.outcome == "complete" and settings.response_format == "file":
            return await self._save(answered, response, _at_once(content))
        if rule.outcome == "complete":
            try:
                answer.body  # noqa: B018 - read here, where the message can say what was called
            except (RetryableFailure, FatalFailure) as failure:
                raise type(failure)(f"{answered}, but {failure}") from failure
            return answer
        raise await self._refusal(rule, answer, answered)

    async def _refusal(self, rule: StatusOutcome, answer: Answer, answered: str) -> Exception:
        """What an answer that completes nothing becomes."""
        response = answer.response
        if rule.outcome == "callback" and self.settings.callback is not None:
            return AwaitCallback(self._token, self.settings.callback.timeout)
        message = self._said(answer, rule.message_from) or rule.message
        if rule.outcome == "error":
            code = self._said(answer, rule.code_from) or rule.code or ""
            variables = error_variables(answer, rule, self.settings.result_variable)
            return BusinessError(code, message or answered, variables)
        if message is None:
            message = f"{answered}{await self._excerpt(answer)}"
        if rule.outcome == "retry":
            wait = retry_after(response.headers.get("retry-after"), datetime.now(UTC)) or rule.retry_after
            broken = response.status_code >= 500
            return ServiceFailure(message, wait) if broken else RetryableFailure(message, wait)
        if rule.message is None and response.is_redirect:
            location = self.service.auth.excerpt(response.headers.get("location", ""), EXCERPT)
            message = (
                f"{answered} and Location {location!r}; it is not followed: set spec.http.url to the target, or "
                "spec.http.maxRedirects"
            )
        return FatalFailure(message)

    async def _excerpt(self, answer: Answer) -> str:
        """The start of an error response, on one line."""
        content = bytearray(answer.content)
        if not content and not answer.response.is_stream_consumed:
            if answer.response.headers.get("content-encoding", "identity") != "identity":
                return ""
            async for part in answer.response.aiter_raw():
                content += part
                if len(content) >= EXCERPT_READ:
                    break
        text = self.service.auth.redact(bytes(content).decode(errors="replace"))[: EXCERPT_READ // 2]
        shown = self.service.auth.excerpt(text, EXCERPT)
        return f": {shown}" if shown else ""

    def _said(self, answer: Answer, path: str | None) -> str:
        """A text of the answer, for a message or code; empty when it has none there."""
        return self.service.auth.excerpt(provided_text(answer, path), LONGEST_MESSAGE)

    async def _save(self, answered: str, response: httpx.Response, parts: AsyncIterator[bytes]) -> dict[str, Any]:
        assert self.service.files is not None  # noqa: S101 - the settings say where
        with self.service.files.writing(self.context.idempotency_key) as file:
            try:
                async for part in parts:
                    await asyncio.to_thread(file.write, part)
            except (RetryableFailure, FatalFailure) as failure:
                raise type(failure)(f"{answered}, but {failure}") from failure
        return file_output(response, file.reference, self.settings.result_variable)


async def _at_once(content: bytes) -> AsyncIterator[bytes]:
    yield content
