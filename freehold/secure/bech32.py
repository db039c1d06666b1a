"""Bech32 (BIP 173): keys as text in which a slip of the pen is noticed."""

_LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECK = 6


def encode(prefix: str, content: bytes) -> str:
    values = _regrouped(content, 8, 5, pad=True) or []
    check = _polymod([*_expanded(prefix), *values, *[0] * _CHECK]) ^ 1
    values += [(check >> 5 * (_CHECK - 1 - at)) & 31 for at in range(_CHECK)]
    return prefix + "1" + "".join(_LETTERS[value] for value in values)


def decode(prefix: str, text: str) -> bytes | None:
    """None for what is no such text."""
    if text not in (text.lower(), text.upper()):
        return None
    found, _, rest = text.lower().rpartition("1")
    if found != prefix or len(rest) < _CHECK or any(letter not in _LETTERS for letter in rest):
        return None
    values = [_LETTERS.index(letter) for letter in rest]
    if _polymod([*_expanded(prefix), *values]) != 1:
        return None
    content = _regrouped(bytes(values[:-_CHECK]), 5, 8, pad=False)
    return None if content is None else bytes(content)


def _expanded(prefix: str) -> list[int]:
    return [*(ord(c) >> 5 for c in prefix), 0, *(ord(c) & 31 for c in prefix)]


def _polymod(values: list[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for at, generator in enumerate(_GENERATOR):
            check ^= generator if top >> at & 1 else 0
    return check


def _regrouped(content: bytes, size: int, into: int, *, pad: bool) -> list[int] | None:
    kept, bits, found = 0, 0, []
    for value in content:
        kept, bits = kept << size | value, bits + size
        while bits >= into:
            bits -= into
            found.append(kept >> bits & (1 << into) - 1)
    rest = kept << (into - bits) & (1 << into) - 1
    if pad:
        return [*found, rest] if bits else found
    return None if bits >= size or rest else found
