from __future__ import annotations

import grpc
import grpc.aio
import pytest

from prokos.engine import errors
from prokos.engine.client import MESSAGE_LIMIT, cut

STATUS = grpc.StatusCode


def translated(status: grpc.StatusCode, details: str | None = "why") -> errors.EngineError:
    nothing = grpc.aio.Metadata()
    return errors.from_grpc(grpc.aio.AioRpcError(status, nothing, nothing, details=details))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (STATUS.RESOURCE_EXHAUSTED, errors.BackpressureError),
        (STATUS.UNAVAILABLE, errors.EngineUnavailableError),
        (STATUS.DEADLINE_EXCEEDED, errors.EngineUnavailableError),
        (STATUS.ABORTED, errors.EngineUnavailableError),
        (STATUS.CANCELLED, errors.EngineUnavailableError),
        (STATUS.NOT_FOUND, errors.NotFoundError),
        (STATUS.UNAUTHENTICATED, errors.AccessDeniedError),
        (STATUS.PERMISSION_DENIED, errors.AccessDeniedError),
        (STATUS.FAILED_PRECONDITION, errors.WrongStateError),
        (STATUS.INVALID_ARGUMENT, errors.RejectedError),
        (STATUS.ALREADY_EXISTS, errors.RejectedError),
        (STATUS.UNIMPLEMENTED, errors.RejectedError),
    ],
)
def test_translates_each_status_into_what_a_caller_can_do(status, expected):
    assert type(translated(status)) is expected


@pytest.mark.parametrize(
    ("status", "details"),
    [
        (STATUS.RESOURCE_EXHAUSTED, "gRPC message exceeds maximum size 4194304: 5000027"),
        (STATUS.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (20000000 vs. 16777216)"),
        (STATUS.UNKNOWN, "Command 'PUBLISH' rejected with code 'EXCEEDED_BATCH_RECORD_SIZE': "),
    ],
)
def test_a_payload_that_is_too_large_is_no_backpressure(status, details):
    error = translated(status, details)
    assert type(error) is errors.PayloadTooLargeError
    assert "about 2 MB" in str(error)
    assert details.rstrip(": ") in str(error)


@pytest.mark.parametrize(
    ("status", "details"),
    [
        (STATUS.UNKNOWN, "Stream removed"),
        (STATUS.INTERNAL, "Received RST_STREAM with error code 2"),
        (STATUS.INTERNAL, "RST_STREAM closed stream. HTTP/2 error code: INTERNAL_ERROR"),
    ],
)
def test_a_connection_that_broke_is_no_refusal(status, details):
    assert type(translated(status, details)) is errors.EngineUnavailableError


def test_an_internal_error_of_the_broker_is_a_refusal():
    assert (
        type(translated(STATUS.INTERNAL, "Command 'X' rejected with code 'PROCESSING_ERROR'")) is errors.RejectedError
    )


def test_the_message_is_the_engines_own():
    assert str(translated(STATUS.NOT_FOUND, "no job 7")) == "no job 7"


def test_an_error_without_details_is_named_by_its_status():
    assert str(translated(STATUS.UNAVAILABLE, None)) == "UNAVAILABLE"


def test_a_short_message_is_not_cut():
    assert cut("x" * MESSAGE_LIMIT) == "x" * MESSAGE_LIMIT


def test_a_long_message_keeps_its_beginning_and_its_end():
    shortened = cut("begin" + "x" * 20_000 + "end")
    assert len(shortened) <= MESSAGE_LIMIT
    assert shortened.startswith("begin")
    assert shortened.endswith("end")
