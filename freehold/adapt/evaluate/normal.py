"""Texts that say the same, made alike before they are compared."""

import re
import unicodedata

_EDGES = " \t\n.,;:!?\"'`*“”‘’«»()[]"


def normal(text: str) -> str:
    """Unicode NFKC, no difference of case, one space for any white space, and no quotes,
    brackets or punctuation around it. Words inside stay as they are."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"\s+", " ", folded).strip(_EDGES)
