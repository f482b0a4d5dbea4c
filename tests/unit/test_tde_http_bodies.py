"""Bodies of every format, sent to a real server; answers that are binary, files, or text in any encoding."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from aiohttp import web
from pydantic import ValidationError

from prokos.resources.http_settings import HttpSettings
from prokos.tde import FatalFailure, RetryableFailure
from unit.http_bench import Service, call, serving

PNG = b"\x89PNG\r\n\x1a\n\x00\xff"
ENCODED = base64.b64encode(PNG).decode()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as started:
        yield started


async def post(service: Service, data: dict[str, Any], **settings: Any) -> None:
    await call(data, url=service.url, method="POST", **settings)


async def test_sends_a_form(service: Service) -> None:
    data = {"name": "Jörg & Söhne", "n": 1.5, "yes": True, "nothing": None, "tag": ["x", "y=1"]}
    await post(service, data, body_format="form")
    assert service.requests[0].content_type == "application/x-www-form-urlencoded"
    expected = [("name", "Jörg & Söhne"), ("n", "1.5"), ("yes", "true"), ("tag", "x"), ("tag", "y=1")]
    assert parse_qsl(service.bodies[0].decode()) == expected


@pytest.mark.parametrize("value", [[1], "text", {"inner": {"a": 1}}])
async def test_a_form_needs_an_object_of_plain_values(service: Service, value: Any) -> None:
    with pytest.raises(FatalFailure, match=r"spec\.http\.body: "):
        await post(service, {"order": value}, body="order", body_format="form")
    assert service.requests == []


@pytest.fixture
async def parsing(service: Service) -> AsyncIterator[tuple[Service, list[Any]]]:
    """A server that parses multipart bodies with its own parser."""
    parts: list[Any] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        from aiohttp.multipart import MultipartReader
        from aiohttp.streams import StreamReader

        stream = StreamReader(request.protocol, 2**16, loop=None)
        stream.feed_data(service.bodies[-1])
        stream.feed_eof()
        async for part in MultipartReader(request.headers, stream):
            assert not isinstance(part, MultipartReader)
            parts.append((part.name, part.filename, part.headers.get("Content-Type"), bytes(await part.read())))
        return web.json_response({})

    service.answer = answer
    return service, parts


async def test_sends_files_and_fields_as_multipart(parsing: tuple[Service, list[Any]]) -> None:
    service, parts = parsing
    data = {
        "title": "Quittung",
        "tags": ["a", "b"],
        "scan": {"base64": ENCODED, "filename": "scän.png", "contentType": "image/png"},
        "raw": {"base64": ENCODED},
    }
    await post(service, data, body_format="multipart")
    assert parts == [
        ("title", None, None, b"Quittung"),
        ("tags", None, None, b"a"),
        ("tags", None, None, b"b"),
        ("scan", "scän.png", "image/png", PNG),
        ("raw", "raw", "application/octet-stream", PNG),
    ]


async def test_sends_multipart_without_files(parsing: tuple[Service, list[Any]]) -> None:
    service, parts = parsing
    await post(service, {"title": "x", "n": 1}, body_format="multipart")
    assert parts == [("title", None, None, b"x"), ("n", None, None, b"1")]


async def test_names_cannot_break_out_of_their_part(parsing: tuple[Service, list[Any]]) -> None:
    service, parts = parsing
    hostile = 'a"\r\nContent-Type: text/html\r\n\r\nx'
    await post(service, {hostile: {"base64": ENCODED, "filename": hostile}}, body_format="multipart")
    assert [(kind, content) for _, _, kind, content in parts] == [("application/octet-stream", PNG)]


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ({"base64": "no base64!"}, "not base64"),
        ({"base64": 1}, "needs a text"),
        ({"base64": ENCODED, "contentType": "text/html\r\nX: 1"}, "no media type"),
        ({"base64": ENCODED, "filename": 7}, "filename"),
        ({"file": "x.png"}, "filesDirectory is not set"),
        ({"base64": ENCODED, "file": "x.png"}, "neither text nor number"),
    ],
)
async def test_says_what_is_wrong_with_a_part(service: Service, part: Any, problem: str) -> None:
    with pytest.raises(FatalFailure, match=problem):
        await post(service, {"scan": part}, body_format="multipart")
    assert service.requests == []


def test_the_boundary_of_a_multipart_body_is_not_the_settings_to_say() -> None:
    with pytest.raises(ValidationError, match="multipart"):
        HttpSettings(
            url="https://x/", method="POST", body_format="multipart", headers={"content-type": "multipart/form-data"}
        )


async def test_sends_text(service: Service) -> None:
    await post(service, {"note": "grün"}, body="note", body_format="text")
    assert service.bodies[0] == "grün".encode()
    assert service.requests[0].headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("value", [ENCODED, {"base64": ENCODED}])
async def test_sends_bytes_that_came_as_base64(service: Service, value: Any) -> None:
    await post(service, {"scan": value}, body="scan", body_format="binary", headers={"Content-Type": "image/png"})
    assert service.bodies[0] == PNG
    assert service.requests[0].headers["Content-Type"] == "image/png"


@pytest.mark.parametrize("value", ["not base64", {"other": 1}, 5, None])
async def test_says_what_a_binary_body_may_be(service: Service, value: Any) -> None:
    with pytest.raises(FatalFailure, match=r"spec\.http\.body.*base64"):
        await post(service, {"scan": value}, body="scan", body_format="binary")


async def test_refuses_a_body_beyond_its_limit(service: Service) -> None:
    with pytest.raises(FatalFailure, match=r"has 1\d\d bytes; spec\.http\.maxRequestBytes is 100"):
        await post(service, {"text": "x" * 100}, max_request_bytes=100)
    assert service.requests == []


async def test_half_a_surrogate_pair_is_a_clear_failure_in_every_format(service: Service) -> None:
    for body_format in ("json", "form", "multipart", "text"):
        with pytest.raises(FatalFailure, match="surrogate"):
            await post(
                service, {"note": "\ud800"}, body_format=body_format, body="note" if body_format == "text" else None
            )
    with pytest.raises(FatalFailure, match="surrogate"):
        await call({"q": "\ud800"}, url=service.url, query={"q": "q"})


# Files


async def test_sends_a_file_by_reference(service: Service, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "scan.png").write_bytes(PNG)
    await post(
        service, {"scan": {"file": "in/scan.png"}}, body="scan", body_format="binary", files_directory=str(tmp_path)
    )
    assert service.bodies[0] == PNG


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "a/../../secret", "link", "into/secret", "", "a//b", ".", "missing", "pipe", "in"],
)
async def test_a_file_reference_cannot_leave_its_directory(service: Service, tmp_path: Path, name: str) -> None:
    directory = tmp_path / "files"
    (directory / "in").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (directory / "link").symlink_to(tmp_path / "secret")
    (directory / "into").symlink_to(tmp_path)
    os.mkfifo(directory / "pipe")
    with pytest.raises(FatalFailure, match=r"cannot read the file .* of spec\.http\.filesDirectory"):
        await post(service, {"scan": {"file": name}}, body="scan", body_format="binary", files_directory=str(directory))
    assert service.requests == []


async def test_a_file_beyond_the_limit_is_not_sent(service: Service, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 101)
    settings: dict[str, Any] = {"body_format": "binary", "files_directory": str(tmp_path), "max_request_bytes": 100}
    with pytest.raises(FatalFailure, match=r"'big' exceeds spec\.http\.maxRequestBytes"):
        await post(service, {"scan": {"file": "big"}}, body="scan", **settings)


async def test_an_answer_becomes_a_file_that_another_call_can_send(service: Service, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    service.answers(body=content, content_type="application/pdf")
    settings: dict[str, Any] = {"files_directory": "shared", "workdir": tmp_path}
    for _ in range(2):  # a repetition replaces the file
        output = await call(url=service.url, response_format="file", max_response_bytes=300_000, **settings)
    digest = hashlib.sha256(content).hexdigest()
    assert output == {"result": {"file": "4711-3", "size": 300_000, "sha256": digest, "contentType": "application/pdf"}}
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["4711-3"]
    service.answers_json({})
    await post(service, output, body="result", body_format="binary", **settings)
    assert service.bodies[-1] == content
    assert service.requests[-1].content_type == "application/pdf"


async def test_a_file_that_is_too_long_or_cut_off_leaves_nothing(service: Service, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"files_directory": str(tmp_path), "response_format": "file", "max_response_bytes": 1000}
    service.answers(body=b"x" * 1001)
    with pytest.raises(FatalFailure, match="maxResponseBytes"):
        await call(url=service.url, **settings)
    service.answers(body=gzip.compress(os.urandom(100))[:-9], headers={"Content-Encoding": "gzip"})
    with pytest.raises(RetryableFailure, match="cut off"):
        await call(url=service.url, **settings)
    assert list(tmp_path.iterdir()) == []


async def test_a_file_is_judged_by_its_content_before_it_is_written(service: Service, tmp_path: Path) -> None:
    outcomes = [{"status": "200", "where": {"state": "pending"}, "outcome": "retry"}]
    settings: dict[str, Any] = {"files_directory": str(tmp_path), "response_format": "file", "outcomes": outcomes}
    service.answers_json({"state": "pending"})
    with pytest.raises(RetryableFailure, match="pending"):
        await call(url=service.url, **settings)
    assert list(tmp_path.iterdir()) == []
    service.answers_json({"state": "done"})
    assert (await call(url=service.url, **settings))["result"]["size"] == 17
    assert (tmp_path / "4711-3").read_text() == '{"state": "done"}'


async def test_an_error_is_not_written_as_a_file(service: Service, tmp_path: Path) -> None:
    service.answers(status=404, text="no such document")
    with pytest.raises(FatalFailure, match="no such document"):
        await call(url=service.url, files_directory=str(tmp_path), response_format="file")
    assert list(tmp_path.iterdir()) == []


# Answers


async def test_a_binary_answer_becomes_base64(service: Service) -> None:
    service.answers(body=PNG, content_type="image/png")
    output = await call(url=service.url, response_format="binary")
    assert output == {"result": {"base64": ENCODED, "contentType": "image/png", "size": len(PNG)}}
    assert service.requests[0].headers["Accept"] == "*/*"
    service.answers_json({})
    await post(service, output, body="result", body_format="binary")
    assert service.bodies[-1] == PNG


@pytest.mark.parametrize(
    ("content", "content_type", "settings", "expected"),
    [
        ("grün".encode("latin-1"), "text/plain; charset=iso-8859-1", {}, "grün"),
        ("grün".encode("cp1252"), "text/plain", {"charset": "windows-1252"}, "grün"),
        ("日本".encode("shift_jis"), "text/plain; charset=Shift_JIS", {}, "日本"),
        ("grün".encode("utf-16"), "text/plain; charset=utf-16", {}, "grün"),
        ("grün".encode("latin-1"), "text/plain; charset=utf-8", {"charset": "latin-1"}, "grün"),
        (b"<a/>", "application/xml", {}, "<a/>"),
        (b'{"a": 1}', "application/json", {"response_format": "text"}, '{"a": 1}'),
        (b"[1]", "text/html", {"response_format": "json"}, [1]),
        (b'"gr\xfcn"', "application/json; charset=latin-1", {}, "grün"),
        (b'"gr\xfcn"', "application/json", {"charset": "latin-1"}, "grün"),
    ],
)
async def test_reads_text_in_its_encoding(
    service: Service, content: bytes, content_type: str, settings: dict[str, Any], expected: Any
) -> None:
    service.answers(body=content, headers={"Content-Type": content_type})
    assert await call(url=service.url, **settings) == {"result": expected}


@pytest.mark.parametrize(
    ("content_type", "problem"),
    [
        ("text/plain; charset=utf-8", r"byte 2 of the response is not utf-8.*spec\.http\.charset"),
        ("text/plain", r"byte 2 of the response is not utf-8"),
        ("text/plain; charset=martian", r"charset martian is unknown"),
        ("text/plain; charset=punycode", r"charset punycode is unknown"),
        ("application/octet-stream", r"neither JSON nor text; set spec\.http\.responseFormat"),
    ],
)
async def test_says_what_to_set_when_text_cannot_be_read(service: Service, content_type: str, problem: str) -> None:
    service.answers(body=b"gr\xfcn", headers={"Content-Type": content_type})
    with pytest.raises(FatalFailure, match=problem):
        await call(url=service.url)


@pytest.mark.parametrize("charset", ["martian", "unicode_escape", "zlib"])
def test_a_charset_that_is_none_is_refused_in_the_manifest(charset: str) -> None:
    with pytest.raises(ValidationError, match="text encoding"):
        HttpSettings(url="https://x/", charset=charset)


def bare_deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(content) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("gzip", gzip.compress(b'{"a": [1,') + gzip.compress(b"2]}")),
        ("deflate", zlib.compress(b'{"a": [1,2]}')),
        ("deflate", bare_deflate(b'{"a": [1,2]}')),
        ("GZIP", gzip.compress(b'{"a": [1,2]}')),
    ],
)
async def test_decompresses_what_servers_call_by_these_names(service: Service, encoding: str, content: bytes) -> None:
    service.answers(body=content, content_type="application/json", headers={"Content-Encoding": encoding})
    assert await call(url=service.url) == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("encoding", "content", "failure", "problem"),
    [
        ("gzip", b"no gzip", RetryableFailure, "damaged"),
        ("gzip", gzip.compress(json.dumps("x" * 1000).encode())[:-4], RetryableFailure, "cut off"),
        ("br", b"x", FatalFailure, "unknown Content-Encoding br"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}")), FatalFailure, "unknown Content-Encoding"),
    ],
)
async def test_says_what_is_wrong_with_compressed_content(
    service: Service, encoding: str, content: bytes, failure: type[Exception], problem: str
) -> None:
    service.answers(body=content, content_type="application/json", headers={"Content-Encoding": encoding})
    with pytest.raises(failure, match=problem):
        await call(url=service.url)
