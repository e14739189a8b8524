from __future__ import annotations

import hashlib
import hmac
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.watch.made_up import START, make_settings

from evenhand.core.errors import ConfigError
from evenhand.watch.store.texts import keep_text, read_text_key, storable, text_hmac

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS, st.binary(min_size=32, max_size=64))
def test_the_hmac_is_the_standard_s(text: str, key: bytes) -> None:
    expected = hmac.HMAC(key, text.encode(), hashlib.sha256).hexdigest()
    assert text_hmac(text, key) == expected


@given(TEXTS)
def test_a_storable_text_holds_no_nul_and_is_as_long(text: str) -> None:
    kept = storable(text)
    assert "\x00" not in kept
    assert len(kept) == len(text)
    assert storable(kept) == kept


def test_the_key_comes_from_the_environment() -> None:
    key = secrets.token_urlsafe(32)
    hashed = make_settings("watch.text=hmac").watch
    assert read_text_key(hashed, {"EVENHAND_TEXT_KEY": key}) == key.encode()
    assert read_text_key(make_settings().watch, {"EVENHAND_TEXT_KEY": key}) is None
    for environment, found in (
        ({}, "is not set"),
        ({"EVENHAND_TEXT_KEY": ""}, "is not set"),
        ({"EVENHAND_TEXT_KEY": "kurz"}, "has 4 bytes"),
    ):
        with pytest.raises(ConfigError) as caught:
            read_text_key(hashed, environment)
        assert found in caught.value.render()
        assert "kurz" not in caught.value.render()


def test_hmac_without_a_key_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="key"):
        keep_text("a", {}, watch=make_settings("watch.text=hmac").watch, key=None, now=START)
