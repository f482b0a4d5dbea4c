"""Resolving an executor's secrets in its worker, from where they are: environment, file, mounted Secret."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from prokos.tde.contract import Secrets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prokos.resources.secrets import Secret

MOUNT = Path("/var/run/prokos/secrets")
"""Where a pod finds the values of `secretKeyRef`, one file per secret."""


class MissingSecretError(Exception):
    """A declared secret has no value here."""


def resolve_secrets(
    declared: Sequence[Secret], environ: Mapping[str, str] = os.environ, mount: Path = MOUNT
) -> Secrets:
    """Read the values of all declared secrets.

    Raises:
        MissingSecretError: One has no value; the message says where it was looked for.
    """
    return Secrets({secret.name: _value(secret, environ, mount) for secret in declared})


def _value(secret: Secret, environ: Mapping[str, str], mount: Path) -> str:
    if secret.env is not None:
        if secret.env not in environ:
            raise MissingSecretError(f"secret {secret.name!r}: environment variable {secret.env} is not set")
        return environ[secret.env]
    path = Path(secret.file) if secret.file else mount / secret.name
    try:
        return path.read_text().rstrip("\n")
    except OSError as error:
        raise MissingSecretError(f"secret {secret.name!r}: cannot read {path}: {error.strerror}") from error
