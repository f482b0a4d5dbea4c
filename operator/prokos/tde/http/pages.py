"""Fetching a list page by page: which request follows an answer. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from prokos.tde.contract import FatalFailure
from prokos.tde.http.fields import MISSING, find

if TYPE_CHECKING:
    from collections.abc import Callable

    from prokos.resources.http_outcomes import Pagination
    from prokos.tde.http.response import Answer

SHOWN = 300
"""Characters of an address that go into a message."""


class Pages:
    """The pages of one list, as they come."""

    def __init__(self, settings: Pagination, request: httpx.Request, show: Callable[[str, int], str]) -> None:
        """Args: the executor's settings; the request of the list; what makes a text of the service fit for messages."""
        self._settings = settings
        self._show = show
        self._number = 0
        if (numbered := settings.page or settings.offset) is not None:
            self._number = numbered.first
            request = _at(request, request.url.copy_set_param(numbered.parameter, numbered.first))
        self.next: httpx.Request | None = request
        """The request of the next page; None when there are no more."""
        self.items: list[Any] = []
        self.count = 0
        self.size = 0
        """Bytes of all answers."""
        self._seen = {str(request.url)}
        self._previous = b""

    def take(self, answer: Answer) -> None:
        """Take the answer to the next request.

        Raises:
            FatalFailure: It holds no list, there are more pages or items than the settings allow, or the next page
                is one that was there before or elsewhere; the message names the setting.
            RetryableFailure: It is no JSON.
        """
        asked = self.next
        assert asked is not None  # noqa: S101 - there is an answer only to a request
        body = answer.body
        items = self._items(body)
        self.count += 1
        self.size += len(answer.content)
        self.items += items
        if len(self.items) > self._settings.max_items:
            raise FatalFailure(f"there are more than {self._settings.max_items} items (spec.http.pagination.maxItems)")
        if items and answer.content == self._previous:
            raise FatalFailure(f"page {self.count} is the one before it again; check spec.http.pagination")
        self._previous = answer.content
        url = self._following(asked.url, answer, body, len(items))
        if url is None:
            self.next = None
            return
        if self.count >= self._settings.max_pages:
            raise FatalFailure(f"there are more than {self._settings.max_pages} pages (spec.http.pagination.maxPages)")
        if str(url) in self._seen:
            raise FatalFailure(f"page {self.count} leads back to an earlier one: {self._shown(url)}")
        self._seen.add(str(url))
        self.next = _at(asked, url)

    def _items(self, body: Any) -> list[Any]:
        path = self._settings.items
        found = body if path is None else find(body, path)
        if found is None:
            return []
        if not isinstance(found, list):
            where = "the answer" if path is None else f"the field {path!r} of the answer"
            what = "is missing" if found is MISSING else "is no list"
            raise FatalFailure(f"{where} {what}; check spec.http.pagination.items")
        return found

    def _following(self, url: httpx.URL, answer: Answer, body: Any, items: int) -> httpx.URL | None:
        settings = self._settings
        if settings.link_header:
            return self._linked(url, answer.response.links.get("next", {}).get("url"))
        if settings.next_url is not None:
            return self._linked(url, find(body, settings.next_url))
        if settings.cursor is not None:
            cursor = find(body, settings.cursor.path)
            if cursor is MISSING or cursor in (None, "", False):
                return None
            if not isinstance(cursor, str | int):
                raise FatalFailure(f"the field {settings.cursor.path!r} of the answer is no cursor")
            return url.copy_set_param(settings.cursor.parameter, cursor)
        numbered = settings.page or settings.offset
        assert numbered is not None  # noqa: S101 - the model holds exactly one of the ways
        if items < (numbered.size or 1):
            return None
        self._number += 1 if settings.page is not None else items
        return url.copy_set_param(numbered.parameter, self._number)

    def _linked(self, url: httpx.URL, link: Any) -> httpx.URL | None:
        """The address of a link, which must not lead to another origin: credentials go there."""
        if link is MISSING or link in (None, ""):
            return None
        if not isinstance(link, str):
            raise FatalFailure("the link to the next page is no text; check spec.http.pagination")
        try:
            target = url.join(link).copy_with(fragment=None)
        except (httpx.InvalidURL, ValueError, UnicodeError):
            raise FatalFailure(f"the link to the next page is no address: {self._show(link, SHOWN)!r}") from None
        if (target.scheme, target.netloc) != (url.scheme, url.netloc) or target.userinfo:
            raise FatalFailure(f"the link to the next page leads to another origin: {self._shown(target)}")
        return target

    def _shown(self, url: httpx.URL) -> str:
        return self._show(str(url.copy_with(query=None, userinfo=b"")), SHOWN)


def _at(request: httpx.Request, url: httpx.URL) -> httpx.Request:
    return httpx.Request(request.method, url, headers=request.headers, extensions=request.extensions)
