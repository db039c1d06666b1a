"""Personal data and secrets in texts: what kind, and in which examples; never the value."""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from freehold.adapt.dataset import checksums

_SHOWN = 20
_REMEMBERED = 4096


class Severity(StrEnum):
    PERSONAL = "personal"  # told
    SECRET = "secret"  # refused until somebody accepts it  # noqa: S105


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    severity: Severity
    pattern: re.Pattern[str]
    hint: str = ""  # a text without it has none of these
    holds: Callable[[str], bool] = lambda found: True

    @property
    def placeholder(self) -> str:
        return f"[{self.name.upper().replace(' ', '_')}]"

    def found(self, text: str) -> Iterator[re.Match[str]]:
        if not self.hint or self.hint in text:
            yield from (each for each in self.pattern.finditer(text) if self.holds(each[0]))


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def _is_phone(text: str) -> bool:
    count = sum(each.isdigit() for each in text)
    return (8 if text.startswith(("+", "00")) else 9) <= count <= 15


def _secret(name: str, pattern: str, hint: str = "") -> Kind:
    return Kind(name, Severity.SECRET, re.compile(pattern), hint)


def _personal(
    name: str, pattern: str, hint: str = "", holds: Callable[[str], bool] = lambda found: True
) -> Kind:
    return Kind(name, Severity.PERSONAL, re.compile(pattern), hint, holds)


# Those that come first take their text from those that follow.
KINDS = (
    _secret(
        "private key",
        r"-----BEGIN (?:[A-Z]{1,12} ){0,2}PRIVATE KEY-----"
        r"(?:(?!-----)[\s\S]){0,8000}(?:-----END (?:[A-Z]{1,12} ){0,2}PRIVATE KEY-----)?",
        "PRIVATE KEY-----",
    ),
    _secret("age key", r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}\b", "AGE-SECRET-KEY"),
    _secret("jwt", r"\beyJ[\w-]{8,2000}\.eyJ[\w-]{4,4000}\.[\w-]{10,2000}", "eyJ"),
    _secret("api key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    _secret("api key", r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b|\bgithub_pat_\w{60,255}\b"),
    _secret("api key", r"\bglpat-[\w-]{20,60}\b", "glpat-"),
    _secret("api key", r"\bsk-(?:[a-z]{2,8}\d{0,2}-){0,2}[\w-]{20,200}\b", "sk-"),
    _secret("api key", r"\b(?:sk|rk)_(?:live|test)_[0-9A-Za-z]{16,120}\b", "k_"),
    _secret("api key", r"\bxox[abeoprs]-[\w-]{10,120}\b", "xox"),
    _secret("api key", r"\bAIza[\w-]{35}", "AIza"),
    _secret("api key", r"\bhf_[A-Za-z0-9]{30,60}\b", "hf_"),
    _secret("api key", r"\bnpm_[A-Za-z0-9]{36}\b", "npm_"),
    _secret("api key", r"\bfh_[a-z]{2,8}_[0-9A-Z]{26}_[\w-]{20,80}\b", "fh_"),
    _secret(
        "password",
        r"(?i)\b(?:password|passwd|api[_-]?key|secret|token)\b[\"']?\s?[:=]\s?[\"']?"
        r"(?=[^\s\"']*\d)(?=[^\s\"']*[a-z])[^\s\"',;]{10,120}",
    ),
    _secret("password", r"\b[a-z][a-z0-9+]{1,10}://[^\s/:@]{1,80}:[^\s/:@]{3,120}@", "://"),
    _personal("email", r"\b[\w.%+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}\b", "@"),
    _personal("iban", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", "",
              checksums.is_iban),
    _personal("card", r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-])", "", checksums.is_card),
    _personal("national id", r"\b[1-478]\d{2}(?:0[1-9]|1[0-2]|[2-9]\d)(?:\d{2}|2[AB])\d{8}\b", "",
              checksums.is_french),
    _personal("national id", r"\b[A-Z]{6}\d{2}[A-EHLMPR-T]\d{2}[A-Z]\d{3}[A-Z]\b"),  # Italy
    _personal("national id", r"\b(?:\d{8}|[XYZ]\d{7})-?[A-HJ-NP-TV-Z]\b", "",
              checksums.is_spanish),
    _personal("national id", r"\b(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"
              r" ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b"),  # United Kingdom
    _personal("national id", r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])"),
    _personal("national id", r"(?<![\d+-])\d{11}(?!\d)", "", checksums.is_german_or_polish),
    _personal("ip address", r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.]\d)", ".", _is_address),
    _personal("ip address", r"(?<![\w:])(?:[0-9a-fA-F]{1,4}:){2,7}(?::?[0-9a-fA-F]{1,4}){1,6}",
              ":", _is_address),
    _personal(
        "phone",
        r"(?<![\w.-])(?<!\d )(?:\+|00)\d{1,3}[ /.-]?(?:\(0?\d{1,4}\)[ /.-]?)?"
        r"\d{1,4}(?:[ /.-]?\d{2,5}){1,4}(?!\d)"
        r"|(?<![\w.-])\(\d{3}\) ?\d{3}[ -]\d{4}(?!\d)"
        r"|(?<![\w.-])\d{3}[.-]\d{3}[.-]\d{4}(?![\d-])"
        r"|(?<![\w.-])(?<!\d )0\d{2,4}[ /-]\d{2,4}(?:[ -]?\d{2,4}){1,3}(?![\d-])",
        "",
        _is_phone,
    ),
)  # fmt: skip


def scan(text: str) -> tuple[tuple[Kind, ...], str]:
    """What is in it, and the text with placeholders instead."""
    # Instructions that all examples share are looked through once.
    return _remembered(text) if len(text) < _REMEMBERED else _scan(text)


def _scan(text: str) -> tuple[tuple[Kind, ...], str]:
    found: list[Kind] = []
    for kind in KINDS:
        places = [each.span() for each in kind.found(text)]
        for start, end in reversed(places):
            text = f"{text[:start]}{kind.placeholder}{text[end:]}"
        found += [kind] * len(places)
    return tuple(found), text


_remembered = lru_cache(maxsize=256)(_scan)


class Findings:
    """Counted over a dataset."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, Severity], int] = {}
        self._examples: dict[tuple[str, Severity], dict[int, None]] = {}

    def add(self, number: int, kinds: Iterable[Kind]) -> None:
        for kind in kinds:
            key = (kind.name, kind.severity)
            self._counts[key] = self._counts.get(key, 0) + 1
            examples = self._examples.setdefault(key, {})
            if len(examples) < _SHOWN:
                examples[number] = None

    @property
    def plain(self) -> list[dict[str, Any]]:
        ordered = sorted(self._counts, key=lambda key: (key[1] is Severity.PERSONAL, key[0]))
        return [
            {
                "type": name,
                "severity": severity.value,
                "count": self._counts[name, severity],
                "examples": list(self._examples[name, severity]),
            }
            for name, severity in ordered
        ]
