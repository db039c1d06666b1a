"""Names that people give, and that must not look like another's.

What something is found or decided by (tenants, aliases, adapters, policies) is ASCII of a
closed form, where each is declared. Labels (of keys, of a provider's groups) may be in any
language, in one spelling and without letters that hide or pose as others.
"""

import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches

_LIKE, _MOST_LIKE = 0.4, 4
_POSES_AS_LATIN = ("CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE")


def label(text: str) -> str:
    """Raises `ValueError` with what is wrong."""
    if not text.isprintable() or text != text.strip():
        raise ValueError("has characters that are not seen: leave them out")
    if unicodedata.normalize("NFKC", text) != text:
        raise ValueError("is not in normal form (NFKC): write its letters plainly")
    scripts = {unicodedata.name(each, "").partition(" ")[0] for each in text if each.isalpha()}
    if "LATIN" in scripts and not scripts.isdisjoint(_POSES_AS_LATIN):
        raise ValueError("mixes Latin letters with others that look like them: use one script")
    return text


def like(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about a name that is not among them. By parts of names as by
    likeness: `a100` is near all its kinds."""
    near = [each for each in known if name.lower() in each][:_MOST_LIKE]
    near = near or get_close_matches(name.lower(), known, _MOST_LIKE, _LIKE)
    return f"; near it are {', '.join(near)}" if near else ""
