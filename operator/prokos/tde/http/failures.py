"""What goes wrong between worker and service, in the terms of the executor contract."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpcore
import httpx

from prokos.tde.contract import FatalFailure, RetryableFailure

if TYPE_CHECKING:
    from collections.abc import Iterator


class ServiceFailure(RetryableFailure):
    """The service is away or broken: it cannot be reached, does not answer, or answers 5xx."""


class CircuitOpenFailure(RetryableFailure):
    """The call was not made, since those before it failed."""


class UnsentFailure(ServiceFailure):
    """No connection: the service has not seen the call, so that repeating it is safe."""


@contextmanager
def connection_failures(call: str, seconds: float) -> Iterator[None]:
    """Turn what httpx, httpcore and sockets raise into failures of the task.

    Args:
        call: Method and address, for the message.
        seconds: The time the call has.

    Raises:
        FatalFailure: The request is one that cannot be sent.
        ServiceFailure: There is no connection, it broke, or it is too slow.
    """
    try:
        yield
    except (httpcore.LocalProtocolError, httpx.InvalidURL, httpcore.UnsupportedProtocol) as error:
        raise FatalFailure(f"{call}: {error}") from error
    except (httpcore.ConnectTimeout, httpcore.PoolTimeout) as error:
        raise UnsentFailure(f"{call}: no connection in time ({error or type(error).__name__})") from error
    except httpcore.TimeoutException as error:
        raise ServiceFailure(f"{call}: the server was silent for too long ({type(error).__name__})") from error
    except TimeoutError as error:
        raise ServiceFailure(f"{call}: no answer within {seconds:g} s (spec.timeout, spec.http.timeouts)") from error
    except httpcore.ConnectError as error:
        raise UnsentFailure(f"{call}: ConnectError: {error.__cause__ or error}") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpx.TransportError, OSError) as error:
        cause = error.__cause__ or error
        raise ServiceFailure(f"{call}: {type(error).__name__}: {cause or 'the connection broke'}") from error
