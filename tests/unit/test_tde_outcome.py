from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prokos.resources.executor import Backoff
from prokos.tde import BusinessError, FatalFailure, RetryableFailure, Secrets
from prokos.tde.outcome import Errored, Failed, attempt_number, backoff_delay, from_exception, retries_left
from unit.builders import task

SECRETS = Secrets({"token": "s3cr3t"})
STEADY = Backoff(initial=timedelta(seconds=2), multiplier=3, maximum=timedelta(seconds=30), jitter=0)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (BusinessError("DECLINED", "no money", {"a": 1}), Errored("DECLINED", "no money", {"a": 1})),
        (BusinessError("DECLINED"), Errored("DECLINED", "")),
        (FatalFailure("broken"), Failed("broken", retryable=False)),
        (RetryableFailure("down"), Failed("down", retryable=True)),
        (RetryableFailure("down", timedelta(minutes=2)), Failed("down", retryable=True, retry_after=120)),
        (RetryableFailure("down", timedelta(0)), Failed("down", retryable=True, retry_after=0)),
        (KeyError("amount"), Failed("KeyError: 'amount'", retryable=True)),
    ],
)
def test_reads_what_an_executor_raised(error, outcome):
    assert from_exception(error, SECRETS) == outcome


@pytest.mark.parametrize("kind", [RetryableFailure, FatalFailure, ValueError, lambda text: BusinessError("CODE", text)])
def test_messages_are_cleared_of_secrets(kind):
    assert from_exception(kind("401 for s3cr3t"), SECRETS).message.endswith("401 for <secret token>")


def test_backs_off_by_the_multiplier_up_to_the_maximum():
    assert [backoff_delay(STEADY, attempt) for attempt in range(5)] == [2, 6, 18, 30, 30]


def test_a_multiplier_of_one_is_a_fixed_backoff():
    fixed = Backoff(initial=timedelta(seconds=2), multiplier=1, jitter=0)
    assert {backoff_delay(fixed, attempt) for attempt in range(100)} == {2}


def test_jitter_shortens_by_its_share_at_most():
    jittered = Backoff(initial=timedelta(seconds=10), jitter=0.3)
    assert backoff_delay(jittered, 0, jitter=0) == 10
    assert backoff_delay(jittered, 0, jitter=1) == pytest.approx(7)


@given(st.integers(0, 10**6), st.floats(1, 1e6), st.floats(0, 1), st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_backoff_is_negative_or_longer_than_the_maximum(attempt, multiplier, jitter, initial, more):
    maximum = timedelta(seconds=initial + more)
    backoff = Backoff(initial=timedelta(seconds=initial), multiplier=multiplier, maximum=maximum, jitter=jitter)
    assert 0 <= backoff_delay(backoff, attempt) <= initial + more


@pytest.mark.parametrize(("retries", "retryable", "left"), [(3, True, 2), (1, True, 0), (0, True, 0), (3, False, 0)])
def test_a_failure_uses_up_one_attempt_or_all(retries, retryable, left):
    assert retries_left(retries, Failed("no", retryable=retryable)) == left


@pytest.mark.parametrize(("retries", "most", "attempt"), [(3, 3, 0), (1, 3, 2), (5, 3, 0)])
def test_counts_attempts_as_far_as_they_are_known(retries, most, attempt):
    assert attempt_number(task(retries=retries, max_retries=most)) == attempt


def test_a_wait_that_is_no_timedelta_is_refused_with_the_failures_words():
    with pytest.raises(TypeError, match=r"retry_after must be a timedelta, not 30; the failure: down"):
        RetryableFailure("down", 30)


@pytest.mark.parametrize("given", [(404,), ("CODE", None)])
def test_a_business_error_is_made_of_texts(given):
    with pytest.raises(TypeError, match="must be texts"):
        BusinessError(*given)


class Careless(RetryableFailure):
    def __init__(self):
        pass


def test_an_exception_that_is_not_what_it_seems_is_a_failure_like_others():
    outcome = from_exception(Careless(), SECRETS)
    assert isinstance(outcome, Failed)
    assert outcome.retryable
    assert outcome.message.startswith("Careless, which cannot be read: AttributeError: ")
