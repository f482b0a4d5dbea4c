"""Tests of the executor as a function; no engine is needed."""

import pytest
from pricing import Pricing

from prokos.tde import BusinessError
from prokos.tde.testing import execute_once

SETTINGS = {"prices": {"tea": "4.90", "pot": "60.00"}}


def test_a_large_order_has_a_discount():
    order = {"lines": [{"article": "pot", "pieces": 2}, {"article": "tea", "pieces": 1}]}
    assert execute_once(Pricing, order, settings=SETTINGS) == {"total": "112.41", "discount": "12.49"}


def test_an_article_without_a_price_is_a_business_error():
    with pytest.raises(BusinessError, match="UNKNOWN_ARTICLE"):
        execute_once(Pricing, {"lines": [{"article": "cup", "pieces": 1}]}, settings=SETTINGS)
