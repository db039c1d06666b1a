"""Numbers that prove themselves: by these a number is told from any other of its length."""

import re

_SPANISH = "TRWAGMYFPDXBNJZSQVHLCKE"
# Visa, Mastercard, American Express, Diners, Discover and its like.
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3[068]\d{12}"
    r"|(?:35|6\d)\d{14}|6\d{18}"
)
_POLISH = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)


def is_card(text: str) -> bool:
    """Luhn, and a beginning and a length that cards have."""
    digits = [int(each) for each in text if each.isdigit()]
    if not _CARD.fullmatch("".join(map(str, digits))):
        return False
    doubled = [each * 2 - 9 * (each > 4) for each in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(each, 36)) for each in moved)) % 97 == 1


def is_french(text: str) -> bool:
    digits = text.replace("2A", "19").replace("2B", "18")
    return len(digits) == 15 and int(digits[:13]) % 97 == 97 - int(digits[13:])


def is_spanish(text: str) -> bool:
    plain = re.sub(r"[^0-9A-Z]", "", text)
    number = plain[:-1].translate(str.maketrans("XYZ", "012"))
    return _SPANISH[int(number) % 23] == plain[-1]


def is_german_or_polish(text: str) -> bool:
    return _is_german(text) or _is_polish(text)


def _is_german(text: str) -> bool:
    """Steuer-Identifikationsnummer: one digit twice or three times, and ISO 7064."""
    if text[0] == "0" or max(text[:10].count(each) for each in set(text[:10])) not in (2, 3):
        return False
    product = 10
    for each in text[:10]:
        product = ((int(each) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(text[10])


def _is_polish(text: str) -> bool:
    """PESEL: a date of birth, and a digit that proves it."""
    month, day = int(text[2:4]) % 20, int(text[4:6])
    total = sum(int(each) * weight for each, weight in zip(text, _POLISH, strict=False))
    return 1 <= month <= 12 and 1 <= day <= 31 and (10 - total % 10) % 10 == int(text[10])
