"""Reading an HTTP response's content: bounded before and after decompression, text by its charset."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from prokos.resources.http_text import text_codec
from prokos.tde.contract import FatalFailure, RetryableFailure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import httpx

PART = 65_536
"""Bytes that are decompressed at a time."""

LONGEST_NAME = 50
"""Characters of an encoding's name that go into a message."""


async def read_content(response: httpx.Response, limit: int) -> bytes:
    """Read a response's content, decoded.

    Raises:
        FatalFailure: It is longer than `limit` bytes, before or after decompression, or its encoding is unknown.
        RetryableFailure: It is damaged.
    """
    content = bytearray()
    async for part in iterate_content(response, limit):
        content += part
    return bytes(content)


async def iterate_content(response: httpx.Response, limit: int) -> AsyncIterator[bytes]:
    """Read a response's content part by part; raises what `read_content` raises."""
    decoder = _decoder(response.headers.get("content-encoding"))
    received = size = 0
    async for raw in response.aiter_raw():
        received += len(raw)
        for part in decoder.feed(raw):
            size += len(part)
            if size > limit:
                break
            yield part
        if max(received, size) > limit:
            raise FatalFailure(f"the response exceeds spec.http.maxResponseBytes ({limit})")
    decoder.end()


class _Identity:
    def feed(self, raw: bytes) -> tuple[bytes, ...]:
        return (raw,)

    def end(self) -> None:
        pass


class _Inflate:
    """Undoes gzip and deflate, which servers apply although none was asked for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: gzip or zlib, whichever it is
        self._started = False

    def feed(self, raw: bytes) -> Iterator[bytes]:
        while raw:
            try:
                part = self._decoder.decompress(raw, PART)
            except zlib.error as error:
                if self._started or self._name != "deflate":
                    raise RetryableFailure(f"the response's {self._name} content is damaged: {error}") from None
                # Some servers mean the bare format by it, which RFC 9110, 8.4.1.2 knows of.
                self._decoder = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
                self._started = True
                continue
            self._started = True
            if part:
                yield part
            raw = self._decoder.unconsumed_tail
            if self._decoder.eof and (raw := self._decoder.unused_data):
                self._decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip may have several members

    def end(self) -> None:
        if self._started and not self._decoder.eof:
            raise RetryableFailure(f"the response's {self._name} content is cut off")


def _decoder(encoding: str | None) -> _Identity | _Inflate:
    name = (encoding or "identity").strip().lower()
    if name == "identity":
        return _Identity()
    if name not in ("gzip", "x-gzip", "deflate"):
        raise FatalFailure(f"the response has the unknown Content-Encoding {_shown(name)}")
    return _Inflate(name)


def decode_text(content: bytes, charset: str) -> str:
    """Decode text.

    Raises:
        FatalFailure: The charset is unknown, or the content is not in it; the message says what to set.
    """
    codec = text_codec(charset)
    if codec is None:
        raise FatalFailure(f"the response's charset {_shown(charset)} is unknown; say it with spec.http.charset")
    try:
        return content.decode(codec)
    except UnicodeDecodeError as error:
        raise FatalFailure(
            f"byte {error.start} of the response is not {_shown(charset)}; say its encoding with spec.http.charset"
        ) from None


def _shown(name: str) -> str:
    """A name that the server gives, whole or not at all: a part of a secret would not be recognised any more."""
    return name if len(name) <= LONGEST_NAME and name.isprintable() else "(a very long name)"
