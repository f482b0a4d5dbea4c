"""Tokens for the engine: OAuth 2 client credentials, by pyzeebe's plugin."""

from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

from oauthlib.oauth2 import BackendApplicationClient
from pyzeebe.credentials.oauth import OAuth2MetadataPlugin
from requests.adapters import HTTPAdapter
from requests_oauthlib import OAuth2Session

if TYPE_CHECKING:
    from prokos.engine.connection import OAuth


def token_plugin(oauth: OAuth, ca_file: str | None) -> OAuth2MetadataPlugin:
    """What adds a token to each call, and asks for a new one when it expires.

    Args:
        oauth: The client, and where its tokens come from. Only HTTPS is asked.
        ca_file: PEM file of an authority that is trusted beside the public ones.
    """
    session = OAuth2Session(client=BackendApplicationClient(client_id=oauth.client_id, scope=oauth.scope))
    if ca_file:
        session.mount("https://", _Trusting(ca_file))
    ask = partial(
        session.fetch_token, token_url=oauth.token_url, client_secret=oauth.client_secret, audience=oauth.audience
    )
    return OAuth2MetadataPlugin(session, ask)


class _Trusting(HTTPAdapter):
    """Trusts an authority beside those that `requests` trusts."""

    def __init__(self, ca_file: str) -> None:
        self._ca_file = ca_file
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        context = ssl.create_default_context(cafile=self._ca_file)
        super().init_poolmanager(*args, ssl_context=context, **options)
