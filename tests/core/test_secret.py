"""A secret that is printed, logged or raised shows nothing of itself."""

import logging
import traceback
from dataclasses import dataclass

import pytest

from freehold.core.secret import Secret

_TEXT = "canary-4711"


@dataclass(frozen=True)
class _Holder:
    name: str
    key: Secret


def test_no_way_of_printing_shows_the_text(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(_TEXT)
    with caplog.at_level(logging.INFO):
        logging.getLogger("x").info("%s %r %s", secret, secret, {"key": secret})
    try:
        raise ValueError(secret, _Holder("x", secret))
    except ValueError as error:
        traced = traceback.format_exc() + repr(error)
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r:>40}", repr([secret]),
             repr(_Holder("x", secret)), caplog.text, traced]  # fmt: skip

    assert not [text for text in shown if _TEXT in text]
    assert all("Secret(***)" in text for text in shown)
    assert secret.reveal() == _TEXT


def test_it_has_no_attributes_that_a_dump_of_an_object_would_show() -> None:
    assert not hasattr(Secret(_TEXT), "__dict__")


def test_secrets_are_equal_by_their_text_and_to_nothing_else() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
