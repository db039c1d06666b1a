"""What is locked opens for those whom it was locked for, whole or not at all, and as `age`
itself writes it."""

import base64
import io

import pytest

from freehold.core.errors import Code, UserError
from freehold.core.secret import Secret
from freehold.secure import age, bech32

# Written by another program of that format (rage), for the key beside it.
_IDENTITY = "AGE-SECRET-KEY-1SP4RS5CEY8HPKTXMK07QQNVNPR47WC546DVWDF2PHJTC53LC74NSNX4N9F"
_MADE_ELSEWHERE = base64.b64decode(
    "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBwMVhzbEtGR0NvQSt1SzM4YUp3ZWZ5UmhGT0UrK1c2dkhTSnlr"
    "RjB5Y0dFCllJUHdxTkZsRUxVY1k4Ym0yRlNpQUw3QWFnL3RvTWEwbFVlQkhyNFpXS0UKLT4gMnVWaXs0Sy1ncmVhc2Ug"
    "OQpUc2UyTHlwNjUxMnlyTW10NldVSFl5NU9JSlhoRkt4NTdWU1QrZEdyNms2UTJUd2Jlc21EaWRhSmFFTXFqWTRaClpC"
    "b2RYSHQxSndXVVNqMWtMTlowaGFlb3pkbWUweG9nMjd5TStNeGFUbjRTU1JGM3U0aFR3NXpXS2cKLS0tIFBDRXZRTkIz"
    "QjFYNmpnUTlSajE1VFNrMTdiKzNmNFI0U0Y4SW95SUtkMXMKdG+f54hazTxHb+Qu/Y/j6n+2WSbfDLo+V/xV2S2XeM9J"
    "g6rPaEGgQwA6/IodrJDtMFUYXEwz/PtLO2gucRh1dpinYZg="
)
_CHUNK = 64 * 1024


def _locked(content: bytes, lock: age.Lock) -> bytes:
    target = io.BytesIO()
    writer = age.Locked(target, lock)
    for at in range(0, len(content), 10_000):
        writer.write(content[at : at + 10_000])
    writer.close()
    return target.getvalue()


def _opened(content: bytes, opener: age.Opener) -> bytes:
    return age.Opened(io.BytesIO(content), opener).read()


def test_a_file_of_another_program_opens() -> None:
    assert _opened(_MADE_ELSEWHERE, age.identities(_IDENTITY)) == b"made by age\n" * 3


@pytest.mark.parametrize("size", [0, 1, _CHUNK - 1, _CHUNK, _CHUNK + 1, 3 * _CHUNK])
def test_what_is_locked_for_several_opens_for_each_of_them_alone(size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    pairs = [age.new_identity() for _ in range(2)]
    lock = age.recipients("# two\n" + "\n".join(public for _, public in pairs))
    locked = _locked(content, lock)
    assert content[:64] not in locked or size < 8
    for secret, _ in pairs:
        assert _opened(locked, age.identities(secret)) == content


def test_only_the_right_passphrase_opens_it() -> None:
    locked = _locked(b"secret", age.Passphrase(Secret("a right passphrase")))
    assert _opened(locked, age.Passphrase(Secret("a right passphrase"))) == b"secret"
    secret, public = age.new_identity()
    for_key = _locked(b"secret", age.recipients(public))
    other, _ = age.new_identity()
    for content, opener, said in (
        (locked, age.Passphrase(Secret("a wrong passphrase")), "does not open with this"),
        (locked, age.identities(secret), "locked with a passphrase"),
        (for_key, age.Passphrase(Secret("a right passphrase")), "locked for keys"),
        (for_key, age.identities(other), "locked for other keys"),
    ):
        with pytest.raises(UserError, match=said) as refused:
            _opened(content, opener)
        assert refused.value.code is Code.INVALID_VALUE


def test_nothing_that_was_changed_or_cut_off_is_taken_for_whole() -> None:
    secret, public = age.new_identity()
    content = bytes(2 * _CHUNK + 100)
    locked = _locked(content, age.recipients(public))
    opener = age.identities(secret)
    header = locked.index(b"\n---") + 48
    changed = [
        *(_flipped(locked, at) for at in (0, 30, 60, header, header + 20, len(locked) - 1)),
        *(locked[:cut] for cut in (10, 100, header, header + 16, len(locked) - 1)),
        locked[: header + 16 + _CHUNK + 16],  # at the end of a chunk
        locked + b"x",
        locked[: header + 16] + locked[header + 32 + _CHUNK :],  # a chunk left out
    ]
    for each in changed:
        with pytest.raises(UserError):
            _opened(each, opener)


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "text", ["", "# nothing", "age1qqqq", _IDENTITY, "age1" + "q" * 58, "ssh-ed25519 AAAA"]
)
def test_what_is_no_public_key_locks_nothing(text: str) -> None:
    with pytest.raises(UserError, match="must be public keys"):
        age.recipients(text)


def test_a_slip_of_the_pen_is_noticed() -> None:
    _, public = age.new_identity()
    prefix, data = public[:4], public[4:]
    for at in range(len(data)):
        other = "q" if data[at] != "q" else "p"
        assert bech32.decode("age", prefix + data[:at] + other + data[at + 1 :]) is None
    assert bech32.decode("age", public.upper()) == bech32.decode("age", public)
    assert bech32.decode("age", "A" + public[1:]) is None, "of both cases"
