"""Outcome rules that look into the answer; lists that come in pages."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from prokos.resources.http_outcomes import Pagination, StatusOutcome
from prokos.resources.http_settings import HttpSettings
from prokos.tde import BusinessError, FatalFailure, RetryableFailure
from prokos.tde.http.fields import MISSING, find
from unit.http_bench import Service, call, serving


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as started:
        yield started


# Rules

RULES: list[dict[str, Any]] = [
    {"status": "2xx", "where": {"state": "pending"}, "outcome": "retry", "message": "not yet", "retry_after": "30s"},
    {
        "status": "200",
        "where": {"errors.0.code": 17, "final": True},
        "outcome": "fail",
        "message_from": "errors.0.text",
    },
    {
        "status": "4xx",
        "where": {"error.code": "LIMIT"},
        "outcome": "error",
        "code": "OVER_LIMIT",
        "message": "too much",
        "message_from": "error.text",
        "variables": {"limit": "error.limit", "currency": "error.money.currency"},
    },
    {"status": "422", "outcome": "error", "code": "INVALID", "code_from": "error.code"},
]


async def test_an_answer_that_says_wait_is_retried(service: Service) -> None:
    service.answers_json({"state": "pending"})
    with pytest.raises(RetryableFailure, match=r"^not yet$") as failure:
        await call(url=service.url, outcomes=RULES)
    assert failure.value.retry_after == timedelta(seconds=30)
    service.answers(text='{"state": "pending"}', content_type="application/json", headers={"Retry-After": "5"})
    with pytest.raises(RetryableFailure) as failure:
        await call(url=service.url, outcomes=RULES)
    assert failure.value.retry_after == timedelta(seconds=5)
    service.answers_json({"state": "done"})
    assert await call(url=service.url, outcomes=RULES) == {"state": "done"}


@pytest.mark.parametrize(
    ("answer", "fails"),
    [
        ({"errors": [{"code": 17, "text": "no\nsuch  book"}], "final": True}, True),
        ({"errors": [{"code": 17, "text": "x"}], "final": 1}, False),
        ({"errors": [{"code": True, "text": "x"}], "final": True}, False),
        ({"errors": [{"code": 17, "text": "x"}]}, False),
        ({"errors": [], "final": True}, False),
        ([1], False),
    ],
)
async def test_all_conditions_of_a_rule_must_hold(service: Service, answer: Any, fails: bool) -> None:
    service.answers_json(answer)
    if fails:
        with pytest.raises(FatalFailure, match=r"^no such book$"):
            await call(url=service.url, outcomes=RULES)
    else:
        assert await call(url=service.url, outcomes=RULES)


@pytest.mark.parametrize("status", [200, 404, 503])
async def test_an_empty_answer_meets_no_condition(service: Service, status: int) -> None:
    outcomes = [{"status": f"{status // 100}xx", "where": {"a": 1}, "outcome": "error", "code": "X"}]
    service.answers(status=status)
    if status == 200:
        assert await call(url=service.url, outcomes=outcomes) == {}
    else:
        with pytest.raises((FatalFailure, RetryableFailure), match=f"answered {status} [A-Z][A-Za-z ]+$"):
            await call(url=service.url, outcomes=outcomes)


async def test_a_business_error_takes_code_message_and_variables_from_the_answer(service: Service) -> None:
    error = {"code": "LIMIT", "text": "over 500", "limit": 500, "money": {"currency": "EUR"}}
    service.answers_json({"error": error}, status=409)
    with pytest.raises(BusinessError) as raised:
        await call(url=service.url, outcomes=RULES)
    assert (raised.value.code, raised.value.message) == ("OVER_LIMIT", "over 500")
    assert raised.value.variables == {"limit": 500, "currency": "EUR"}
    service.answers_json({"error": {"code": "LIMIT", "text": None, "money": 3}}, status=400)
    with pytest.raises(BusinessError) as raised:
        await call(url=service.url, outcomes=RULES)
    assert (raised.value.message, raised.value.variables) == ("too much", {})
    service.answers_json({"error": {"code": "NO_STREET"}}, status=422)
    with pytest.raises(BusinessError) as raised:
        await call(url=service.url, outcomes=RULES)
    assert raised.value.code == "NO_STREET"
    service.answers(text="<html>", status=422)
    with pytest.raises(BusinessError) as raised:
        await call(url=service.url, outcomes=RULES)
    assert raised.value.code == "INVALID"


async def test_a_message_of_the_answer_is_one_short_line(service: Service) -> None:
    service.answers_json({"errors": [{"code": 17, "text": "\x1b[31m" + "long " * 1000}], "final": True})
    with pytest.raises(FatalFailure) as failure:
        await call(url=service.url, outcomes=RULES)
    assert str(failure.value).startswith("[31mlong long")
    assert len(str(failure.value)) == 1000


@pytest.mark.parametrize(
    "rule",
    [
        {"status": "200", "outcome": "error"},
        {"status": "200", "outcome": "fail", "code": "X"},
        {"status": "200", "outcome": "fail", "code_from": "x"},
        {"status": "200", "outcome": "retry", "variables": {}},
        {"status": "200", "outcome": "complete", "message": "x"},
        {"status": "200", "outcome": "fail", "retry_after": "1s"},
        {"status": "200", "outcome": "fail", "where": {"a": [1]}},
        {"status": "600", "outcome": "fail"},
    ],
)
def test_refuses_a_rule_whose_parts_do_not_fit(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        StatusOutcome.model_validate(rule)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a.b", 1),
        ("a", {"b": 1}),
        ("list.1.x", 2),
        ("with.dot", 3),
        ("list.2", MISSING),
        ("list.-1", MISSING),
        ("list.²", MISSING),
        ("a.b.c", MISSING),
        ("null", None),
        ("null.x", MISSING),
        ("", MISSING),
    ],
)
def test_finds_a_field_by_its_path(path: str, found: Any) -> None:
    value = {"a": {"b": 1}, "list": [0, {"x": 2}], "with.dot": 3, "null": None}
    assert find(value, path) == found


# Pages


def serves(service: Service, answer: Callable[[web.BaseRequest], tuple[Any, dict[str, str]]]) -> None:
    async def respond(request: web.BaseRequest) -> web.Response:
        body, headers = answer(request)
        return web.Response(text=json.dumps(body), content_type="application/json", headers=headers)

    service.answer = respond


async def fetch(service: Service, path: str = "/", **settings: Any) -> dict[str, Any]:
    return await call(url=service.url + path, **settings)


async def test_follows_the_link_header(service: Service) -> None:
    def answer(request: web.BaseRequest) -> tuple[Any, dict[str, str]]:
        page = int(request.query.get("p", "1"))
        links = {
            1: '</?p=2>; rel="next", </?p=9>; rel="last"',
            2: f"<{service.url}/?p=3>; rel=next",
            3: '</?p=1>; rel="first"',
        }
        return [page], {"Link": links[page]}

    serves(service, answer)
    output = await fetch(service, pagination={"link_header": True}, auth={"bearer": "token"})
    assert output == {"items": [1, 2, 3], "pages": 3}
    assert {request.headers["Authorization"] for request in service.requests} == {"Bearer s3cr3t-token"}


async def test_follows_an_address_in_the_answer(service: Service) -> None:
    def answer(request: web.BaseRequest) -> tuple[Any, dict[str, str]]:
        more = request.path == "/"
        return {"data": {"rows": [request.path]}, "links": {"next": "next?a=1" if more else None}}, {}

    serves(service, answer)
    output = await fetch(service, pagination={"next_url": "links.next", "items": "data.rows"}, result_variable="all")
    assert output == {"all": {"items": ["/", "/next"], "pages": 2}}


async def test_follows_a_cursor(service: Service) -> None:
    def answer(request: web.BaseRequest) -> tuple[Any, dict[str, str]]:
        following: dict[str, Any] = {"": "a/b&c", "a/b&c": 7, "7": ""}
        at = request.query.get("after", "")
        return {"items": [at], "next": following[at]}, {}

    serves(service, answer)
    pagination = {"cursor": {"path": "next", "parameter": "after"}, "items": "items"}
    output = await fetch(service, "/?limit=1", pagination=pagination)
    assert output["items"] == ["", "a/b&c", "7"]
    assert [request.query["limit"] for request in service.requests] == ["1"] * 3


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({"page": {"parameter": "n", "first": 1}}, ["1", "2", "3"]),
        ({"page": {"parameter": "n", "first": 0, "size": 2}}, ["0", "1"]),
        ({"offset": {"parameter": "n", "first": 0}}, ["0", "2", "3"]),
        ({"offset": {"parameter": "n", "first": 0, "size": 2}}, ["0", "2"]),
    ],
)
async def test_counts_pages_or_items(service: Service, settings: dict[str, Any], asked: list[str]) -> None:
    def answer(request: web.BaseRequest) -> tuple[Any, dict[str, str]]:
        return [["a", "b"], ["c"], []][len(service.requests) - 1], {}

    serves(service, answer)
    assert (await fetch(service, "/?n=9", pagination=settings))["items"] == ["a", "b", "c"]
    assert [request.query.getall("n") for request in service.requests] == [[number] for number in asked]


async def test_each_page_may_be_repeated(service: Service) -> None:
    answers = [503, 200, 503, 200]

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.json_response([len(service.requests)] if len(service.requests) < 4 else [], status=answers.pop(0))

    service.answer = answer
    output = await fetch(
        service,
        pagination={"page": {"parameter": "n", "first": 1}},
        retry={"tries": 2, "initial": "1ms", "maximum": "1ms"},
    )
    assert output == {"items": [2], "pages": 2}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"max_pages": 3}, r"more than 3 pages \(spec\.http\.pagination\.maxPages\)"),
        ({"max_items": 5}, r"more than 5 items \(spec\.http\.pagination\.maxItems\)"),
    ],
)
async def test_a_list_beyond_the_limits_fails_and_is_not_cut(
    service: Service, settings: dict[str, Any], problem: str
) -> None:
    serves(service, lambda request: ([request.query["n"]] * 2, {}))
    with pytest.raises(FatalFailure, match=problem):
        await fetch(service, pagination={"page": {"parameter": "n", "first": 1}, **settings})
    assert len(service.requests) == 3


async def test_all_pages_together_have_the_limit_of_an_answer(service: Service) -> None:
    serves(service, lambda request: ([request.query["n"] + "x" * 1000], {}))
    with pytest.raises(FatalFailure, match="maxResponseBytes"):
        await fetch(service, pagination={"page": {"parameter": "n", "first": 1}}, max_response_bytes=3500)
    assert len(service.requests) == 4


async def test_a_service_that_ignores_the_parameter_is_noticed(service: Service) -> None:
    serves(service, lambda request: ([1, 2], {}))
    with pytest.raises(FatalFailure, match="page 2 is the one before it again"):
        await fetch(service, pagination={"page": {"parameter": "n", "first": 1}})


async def test_pages_that_lead_in_a_circle_are_noticed(service: Service) -> None:
    serves(
        service, lambda request: ([request.path], {"Link": f'<{"/b" if request.path != "/b" else "/a"}>; rel="next"'})
    )
    with pytest.raises(FatalFailure, match="leads back to an earlier one"):
        await fetch(service, pagination={"link_header": True})
    assert len(service.requests) == 3


@pytest.mark.parametrize(
    "link", ["http://169.254.169.254/", "//other.example/", "https://127.0.0.1/", "http://[::1", 7, {}]
)
async def test_the_next_page_is_at_the_same_origin(service: Service, link: Any) -> None:
    serves(service, lambda request: ({"items": [1], "next": link}, {}))
    with pytest.raises(FatalFailure, match="the link to the next page"):
        await fetch(service, pagination={"next_url": "next", "items": "items"}, auth={"bearer": "token"})
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("body", "problem"), [({"x": 1}, "'items' of the answer is missing"), ({"items": 7}, "is no list")]
)
async def test_says_where_the_list_is_not(service: Service, body: Any, problem: str) -> None:
    serves(service, lambda request: (body, {}))
    with pytest.raises(FatalFailure, match=problem):
        await fetch(service, pagination={"link_header": True, "items": "items"})


@pytest.mark.parametrize(
    "pagination",
    [{}, {"link_header": True, "next_url": "x"}, {"page": {"parameter": "p"}}, {"link_header": True, "max_pages": 0}],
)
def test_refuses_pagination_that_says_nothing_or_too_much(pagination: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Pagination.model_validate(pagination)


@pytest.mark.parametrize("settings", [{"method": "POST"}, {"response_format": "text"}, {"response_format": "binary"}])
def test_pages_are_json_that_is_got(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="pagination"):
        HttpSettings.model_validate({"url": "https://x/", "pagination": {"link_header": True}, **settings})
