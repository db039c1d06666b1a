"""Labels in any language, none of which looks like another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.names import label


@pytest.mark.parametrize(
    "text", ["web", "Müller & Söhne", "ключ сайта", "鍵 1", "κλειδί", "a", "CN=ml,OU=Grüppe", "🦊"]
)
def test_a_label_may_be_in_any_language(text: str) -> None:
    assert label(text) == text


@pytest.mark.parametrize(
    "text",
    ["\u0430dmin", "adm\u0456n", "\u03bfperator", "web\u200b", "web\u202e", "web ", " web", "we\nb",
     "\uff57eb", "web\u00ad", "\u24e6eb", "u\u0308", "web\u00a0x", "\U000e0077"],
)  # fmt: skip
def test_a_label_that_looks_like_another_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"characters|normal form|Latin"):
        label(text)


@given(text=st.text(min_size=1, max_size=20))
def test_what_is_accepted_has_one_spelling(text: str) -> None:
    import unicodedata

    try:
        label(text)
    except ValueError:
        return
    assert unicodedata.normalize("NFKC", text) == text == text.strip()
    assert text.isprintable()
