"""Finding secrets in what leaves a worker."""

from __future__ import annotations

import pytest

from prokos.tde import FatalFailure, Secrets
from prokos.tde.redaction import Redactor


def redactor(secret: str) -> Redactor:
    return Redactor(Secrets({"url": secret}), ["url"])


@pytest.mark.parametrize("said", ["it is t0p-s3cret/x", "it is t0p-s3cret%2Fx"])
def test_the_password_of_a_url_is_a_secret_by_itself(said: str) -> None:
    looking = redactor("postgresql://shop:t0p-s3cret%2Fx@db.example:5432/shop")
    assert looking.text(said) == "it is <secret url>"
    with pytest.raises(FatalFailure, match="the result holds the value of secret 'url'"):
        looking.refuse({"said": [said]}, "the result")
    assert looking.text("user shop at db.example:5432") == "user shop at db.example:5432"


@pytest.mark.parametrize("secret", ["postgresql://shop:pw@db/shop", "http://[nonsense", "sqlite:///file", "a:b@c"])
def test_what_is_short_or_no_url_has_no_such_part(secret: str) -> None:
    text = "the pw, nonsense, b and the file are words"
    looking = redactor(secret)
    assert looking.text(text) == text
    assert looking.text(f"<{secret}>") == "<<secret url>>"
