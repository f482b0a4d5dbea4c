"""How calls of executors of type `http` are paced and bounded."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from pydantic import Field, model_validator

from prokos.resources.base import LINE_MAX_LENGTH, Duration, Model
from prokos.resources.cel import Rule, cel
from prokos.resources.http_text import check_header, may_be_set


class Timeouts(Model):
    """How long parts of a call may take. All of it, retries included, has `spec.timeout`."""

    connect: Duration = Field(timedelta(seconds=10), gt=timedelta(), description="Look-up, connection and TLS.")
    read: Duration | None = Field(None, gt=timedelta(), description="Longest silence of the server.")
    total: Duration | None = Field(None, gt=timedelta(), description="One call, from connection to last byte.")


class HttpRetry(Model):
    """Calling again within one attempt, before the engine is told. Waits are random, up to a bound that doubles."""

    tries: int = Field(1, ge=1, le=10, description="Calls in one attempt; 1 leaves all retries to the engine.")
    initial: Duration = Field(timedelta(milliseconds=200), gt=timedelta(), description="The first wait.")
    maximum: Duration = Field(timedelta(seconds=5), gt=timedelta(), description="Longest wait.")

    @model_validator(mode="after")
    @cel(
        Rule("duration(self.initial) <= duration(self.maximum)", "initial must not be longer than maximum", ".initial")
    )
    def _ordered(self) -> Self:
        if self.initial > self.maximum:
            raise ValueError(f"initial ({self.initial}) is longer than maximum ({self.maximum})")
        return self


class CircuitBreaker(Model):
    """Not calling a service that is down. Each worker has a breaker of its own."""

    failures: int = Field(5, ge=1, description="Failures in a row that open it: no connection, no answer, 5xx.")
    open_for: Duration = Field(timedelta(seconds=30), gt=timedelta(), description="Then one call tries again.")


class RateLimit(Model):
    """How often a worker calls. Calls beyond it wait, within the attempt's time."""

    requests_per_second: float = Field(gt=0, description="In the long run.")
    burst: int = Field(1, ge=1, description="Calls that may come at once after a pause.")


class Idempotency(Model):
    """By what a service recognises a repeated call of one task."""

    header: str = Field("Idempotency-Key", max_length=LINE_MAX_LENGTH, description="Header that takes it.")
    field: str | None = Field(
        None, description="Field of the input whose value is sent, such as an order's number; default: the task's key."
    )

    @model_validator(mode="after")
    @cel(Rule(may_be_set("self.header"), "is not the name of a header that settings may set", ".header"))
    def _sendable(self) -> Self:
        check_header(self.header)
        return self
