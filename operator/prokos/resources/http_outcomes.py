"""What answers of an HTTP service mean for its tasks: rules by status and content, pages, callbacks."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from prokos.resources.base import LINE_MAX_LENGTH, Duration, Model
from prokos.resources.cel import Rule, beyond_cel, cel
from prokos.resources.http_text import check_header, may_be_set
from prokos.resources.secrets import SecretName

StatusPattern = Annotated[str, StringConstraints(pattern=r"^[1-5](\d\d|xx)$")]


class StatusOutcome(Model):
    """What an HTTP status means for the task. The first rule that matches decides.

    A path names a field of the answer's JSON: `a.b` descends, a number takes that item of a list.
    """

    status: StatusPattern = Field(description="A status such as `402`, or a class such as `5xx`.")
    where: dict[str, Any] = Field(
        default_factory=dict, description="Path to the text, number or boolean that the answer must hold there."
    )
    outcome: Literal["complete", "error", "retry", "fail", "callback"] = Field(
        description="Result, business error, retryable failure, fatal failure, or a result that is sent later."
    )
    code: str | None = Field(None, description="BPMN error code, for `error`.")
    code_from: str | None = Field(None, description="Path of the code in the answer; `code` holds where it has none.")
    message: str | None = Field(None, description="Of the error or failure.")
    message_from: str | None = Field(None, description="Path of the message in the answer, before `message`.")
    variables: dict[str, str] | None = Field(
        None, description="For `error`: variable to the path of its value, instead of all fields of the answer."
    )
    retry_after: Duration | None = Field(
        None, ge=timedelta(), description="For `retry`: wait, if the answer asks none."
    )

    @field_validator("where")
    @classmethod
    @beyond_cel("values of `http.outcomes[].where` that are lists or objects")
    def _scalars(cls, where: dict[str, Any]) -> dict[str, Any]:
        for path, value in where.items():
            if not isinstance(value, str | int | float | bool | None):
                raise ValueError(f"{path}: a text, number, boolean or null is needed, not {value!r}")
        return where

    @model_validator(mode="after")
    @cel(
        Rule("has(self.code) == (self.outcome == 'error')", "code goes with outcome: error, and is needed there"),
        Rule(
            "self.outcome == 'error' || !(has(self.codeFrom) || has(self.variables))",
            "codeFrom and variables go with outcome: error",
        ),
        Rule(
            "!(self.outcome in ['complete', 'callback']) "
            "|| (self.?message.orValue('') == '' && self.?messageFrom.orValue('') == '')",
            "outcomes complete and callback have no message",
        ),
        Rule("self.outcome == 'retry' || !has(self.retryAfter)", "retryAfter goes with outcome: retry"),
    )
    def _fits_its_outcome(self) -> Self:
        if (self.outcome == "error") != (self.code is not None):
            raise ValueError("code goes with outcome: error, and is needed there")
        if self.outcome != "error" and (self.code_from is not None or self.variables is not None):
            raise ValueError("codeFrom and variables go with outcome: error")
        if self.outcome in ("complete", "callback") and (self.message or self.message_from):
            raise ValueError(f"outcome: {self.outcome} has no message")
        if self.outcome != "retry" and self.retry_after is not None:
            raise ValueError("retryAfter goes with outcome: retry")
        return self

    def names(self, status: int) -> bool:
        """Whether the rule is about a status."""
        text = str(status)
        return self.status == text or (self.status.endswith("xx") and self.status[0] == text[0])


class CursorPages(Model):
    """Each answer holds the query parameter of the next page."""

    path: str = Field(description="Path of the cursor in the answer; missing, null or empty on the last page.")
    parameter: str = Field(description="Query parameter that takes it.")


class NumberedPages(Model):
    """Pages are asked for by a number."""

    parameter: str = Field(description="Query parameter that takes the number.")
    first: int = Field(ge=0, description="The first number.")
    size: int | None = Field(
        None, ge=1, description="A page with fewer items is the last one; without it, an empty page is."
    )


class Pagination(Model):
    """Fetching all pages of a list in one attempt: one of linkHeader, nextUrl, cursor, page, offset."""

    link_header: bool = Field(False, description='The header `Link` with rel="next" (RFC 8288) leads on.')
    next_url: str | None = Field(None, description="Path of the next page's URL in the answer.")
    cursor: CursorPages | None = None
    page: NumberedPages | None = Field(None, description="The number counts pages.")
    offset: NumberedPages | None = Field(None, description="The number counts items.")
    items: str | None = Field(None, description="Path of the list in an answer; default: the answer is the list.")
    max_pages: int = Field(100, ge=1, description="More pages fail the task.")
    max_items: int = Field(10_000, ge=1, description="More items fail the task.")

    @model_validator(mode="after")
    @cel(
        Rule(
            "[self.linkHeader, has(self.nextUrl), has(self.cursor), has(self.page), has(self.offset)]"
            ".exists_one(is_set, is_set)",
            "give exactly one of linkHeader, nextUrl, cursor, page or offset",
        )
    )
    def _one_way(self) -> Self:
        ways = (self.next_url, self.cursor, self.page, self.offset)
        if self.link_header + sum(way is not None for way in ways) != 1:
            raise ValueError("give exactly one of linkHeader, nextUrl, cursor, page or offset")
        return self


_NO_HEADER = "self.?header.orValue('') == ''"


class Callback(Model):
    """The service answers 202, works on, and sends the result later."""

    secret: SecretName = Field(description="Secret that tokens are made with, so that nobody can guess one.")
    url: str = Field(
        "{token}",
        max_length=LINE_MAX_LENGTH,
        description="What the service is given; `{token}` is the token of the task.",
    )
    header: str | None = Field(
        "Prokos-Callback", max_length=LINE_MAX_LENGTH, description="Header that takes it; null for none."
    )
    field: str | None = Field(None, description="Field of a JSON or form body that takes it.")
    timeout: Duration = Field(
        timedelta(hours=1), gt=timedelta(), le=timedelta(days=365), description="Longest wait, then the attempt fails."
    )

    @model_validator(mode="after")
    @cel(
        Rule("self.url.contains('{token}')", "must contain {token}", ".url"),
        Rule(
            f"!({_NO_HEADER}) || has(self.field)",
            "give header, field or both, else the service does not learn of the callback",
        ),
        Rule(
            f"{_NO_HEADER} || ({may_be_set('self.header')})",
            "is not the name of a header that settings may set",
            ".header",
        ),
        Rule(
            f"{_NO_HEADER} || self.url.matches(r'^[\\t\\x20-\\x7e]*$')",
            "has a line break or another character that headers cannot hold",
            ".url",
        ),
    )
    def _is_given(self) -> Self:
        if "{token}" not in self.url:
            raise ValueError(f"url {self.url!r} does not contain {{token}}")
        if not self.header and self.field is None:
            raise ValueError("give header, field or both, else the service does not learn of the callback")
        if self.header:
            check_header(self.header, self.url)
        return self
