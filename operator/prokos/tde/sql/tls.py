"""How connections to a database are encrypted, and whose certificate is believed.

Without `spec.sql.tls` a server elsewhere must show a certificate that fits its name (`verify-full`), and one on this
machine is talked to in the clear. A PostgreSQL URL with `sslmode` decides for itself.
"""

from __future__ import annotations

import ssl
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from prokos.resources.sql_settings import SqlTls
from prokos.tde.contract import FatalFailure
from prokos.tde.sql.url import is_local

if TYPE_CHECKING:
    from sqlalchemy import URL

    from prokos.tde.contract import Secrets

PUBLIC_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
"""Where Debian and its relatives keep the public authorities, if OpenSSL's own place is empty."""


class Tls:
    """The TLS settings of one executor, for either driver."""

    def __init__(self, url: URL, settings: SqlTls | None, secrets: Secrets) -> None:
        self._in_url = any(option.startswith("ssl") for option in url.query)
        if self._in_url and settings is not None:
            raise ValueError(
                "the database URL of spec.sql has options of TLS, and so has spec.sql.tls; keep one of them"
            )
        self._settings = settings or SqlTls(mode="disable" if is_local(url) else "verify-full")
        self._authorities = _value(secrets, self._settings.ca_secret)
        self._certificate = _value(secrets, self._settings.certificate_secret)
        self._key = _value(secrets, self._settings.key_secret)
        self._directory: TemporaryDirectory[str] | None = None

    def close(self) -> None:
        """Remove the files that libpq was given."""
        if self._directory is not None:
            self._directory.cleanup()

    def libpq(self) -> dict[str, str]:
        """Arguments of libpq, which reads certificates from files."""
        mode = self._settings.mode
        if self._in_url:
            return {}
        arguments: dict[str, str] = {"sslmode": mode}
        if mode.startswith("verify"):
            found = self._file("ca.pem", self._authorities) if self._authorities else _public_authorities()
            arguments["sslrootcert"] = found
        if self._certificate and self._key:
            arguments["sslcert"] = self._file("certificate.pem", self._certificate)
            arguments["sslkey"] = self._file("key.pem", self._key)
        return arguments

    @cached_property
    def context(self) -> ssl.SSLContext | None:
        """The same for Python's own TLS; None is none.

        Raises:
            FatalFailure: A secret holds no certificate or key.
        """
        mode = self._settings.mode
        if mode == "disable":
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = mode == "verify-full"
        context.verify_mode = ssl.CERT_REQUIRED if mode.startswith("verify") else ssl.CERT_NONE
        try:
            if self._authorities:
                context.load_verify_locations(cadata=self._authorities)
            elif context.verify_mode is ssl.CERT_REQUIRED:
                context.load_default_certs()
            if self._certificate and self._key:
                certificate = self._file("certificate.pem", self._certificate)
                context.load_cert_chain(certificate, self._file("key.pem", self._key))
        except (ssl.SSLError, ValueError) as error:
            raise FatalFailure(
                "a secret of spec.sql.tls holds no PEM certificate or key, or they do not fit"
            ) from error
        return context

    def _file(self, name: str, content: str) -> str:
        if self._directory is None:
            self._directory = TemporaryDirectory(prefix="prokos-sql-")  # only its owner may enter
        path = Path(self._directory.name, name)
        path.touch(mode=0o600)  # libpq refuses a key that others may read
        path.write_text(content + "\n")
        return str(path)


def _value(secrets: Secrets, name: str | None) -> str | None:
    return None if name is None else secrets[name]


def _public_authorities() -> str:
    return ssl.get_default_verify_paths().cafile or PUBLIC_AUTHORITIES
