"""The age format (age-encryption.org/v1): a stream that a passphrase opens, or whoever holds
the secret key of a recipient. Files made here open with `age` too, and the other way round.
"""

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from freehold.core.errors import Code, UserError
from freehold.core.secret import Secret
from freehold.secure import bech32

INTRO = b"age-encryption.org/v1\n"
_X25519, _SCRYPT = "age-encryption.org/v1/X25519", b"age-encryption.org/v1/scrypt"
_PUBLIC, _SECRET = "age", "age-secret-key-"
_CHUNK, _TAG = 64 * 1024, 16
_WORK, _MOST_WORK = 17, 20  # as a power of two: 128 MiB, at most 1 GiB
_KEY, _FILE_KEY, _WRAPPED = 32, 16, 32
_MAX_HEADER_LINES, _MAX_LINE, _COLUMNS = 200, 1024, 64


@dataclass(frozen=True, slots=True)
class Passphrase:
    secret: Secret


@dataclass(frozen=True, slots=True)
class Recipients:
    """Public keys: each of them opens it alone."""

    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Identities:
    keys: tuple[Secret, ...]  # in hex


Lock = Passphrase | Recipients
Opener = Passphrase | Identities


def recipients(text: str) -> Recipients:
    """Those of a file: one a line, `#` begins a comment. Raises `UserError`."""
    found = [bech32.decode(_PUBLIC, line) for line in _lines(text)]
    keys = [key for key in found if key is not None and len(key) == _KEY]
    if not keys or len(keys) < len(found):
        raise UserError(
            Code.INVALID_VALUE,
            "The recipients must be public keys as `freehold backup key` and age-keygen print "
            "them (age1…), one a line.",
        )
    return Recipients(tuple(keys))


def identities(text: str) -> Identities:
    found = [bech32.decode(_SECRET, line) for line in _lines(text)]
    keys = [Secret(key.hex()) for key in found if key is not None and len(key) == _KEY]
    if not keys or len(keys) < len(found):
        raise UserError(
            Code.INVALID_VALUE,
            "The identity must be a file as `freehold backup key` and age-keygen write it "
            "(AGE-SECRET-KEY-1…).",
        )
    return Identities(tuple(keys))


def new_identity() -> tuple[str, str]:
    """The secret key and the public key, as they are written."""
    key = X25519PrivateKey.generate()
    secret = bech32.encode(_SECRET, key.private_bytes_raw()).upper()
    return secret, bech32.encode(_PUBLIC, key.public_key().public_bytes_raw())


class Locked:
    """Writes what it is given to `target`, encrypted; whole only when it was closed."""

    def __init__(self, target: BinaryIO, lock: Lock) -> None:
        file_key, nonce = os.urandom(_FILE_KEY), os.urandom(16)
        target.write(_header(file_key, lock) + nonce)
        self._target = target
        self._cipher = ChaCha20Poly1305(_derived(file_key, nonce, b"payload"))
        self._number = 0
        self._waiting = bytearray()

    def write(self, content: bytes) -> int:
        self._waiting += content
        while len(self._waiting) > _CHUNK:  # the last chunk is not empty
            self._put(bytes(self._waiting[:_CHUNK]), is_last=False)
            del self._waiting[:_CHUNK]
        return len(content)

    def flush(self) -> None:
        """There is nothing that could go before its chunk is full."""

    def close(self) -> None:
        self._put(bytes(self._waiting), is_last=True)

    def _put(self, content: bytes, *, is_last: bool) -> None:
        nonce = _nonce(self._number, is_last)
        self._target.write(self._cipher.encrypt(nonce, content, None))
        self._number += 1


class Opened:
    """Reads what `Locked` wrote. Nothing is returned that was not authenticated, and the end
    only where it was written. Raises `UserError`: `INVALID_VALUE` for what does not open it,
    `FILE_INVALID` for what is damaged or cut off."""

    def __init__(self, source: BinaryIO, opener: Opener) -> None:
        file_key = _opened_header(source, opener)
        nonce = source.read(16)
        if len(nonce) < 16:
            raise _damaged()
        self._source = source
        self._cipher = ChaCha20Poly1305(_derived(file_key, nonce, b"payload"))
        self._number = 0
        self._ready = b""
        self._ahead = source.read(_CHUNK + _TAG)
        self._is_ended = False

    def read(self, size: int = -1) -> bytes:
        parts = []
        while size and not (self._is_ended and not self._ready):
            if not self._ready:
                self._ready = self._next()
                continue
            part = self._ready if size < 0 else self._ready[:size]
            self._ready = self._ready[len(part) :]
            parts.append(part)
            size = size if size < 0 else size - len(part)
        return b"".join(parts)

    def _next(self) -> bytes:
        chunk, self._ahead = self._ahead, self._source.read(_CHUNK + _TAG)
        self._is_ended = not self._ahead
        nonce = _nonce(self._number, self._is_ended)
        self._number += 1
        try:
            content = self._cipher.decrypt(nonce, chunk, None)
        except InvalidTag:
            raise _damaged() from None
        if not content and self._number > 1:
            raise _damaged()
        return content


def _header(file_key: bytes, lock: Lock) -> bytes:
    if isinstance(lock, Passphrase):
        stanzas = [_for_passphrase(file_key, lock.secret)]
    else:
        stanzas = [_for_recipient(file_key, key) for key in lock.keys]
    signed = INTRO + b"".join(stanzas) + b"---"
    return signed + b" " + _base64(_mac(file_key, signed)) + b"\n"


def _for_passphrase(file_key: bytes, secret: Secret) -> bytes:
    salt = os.urandom(16)
    wrapped = _wrap(_stretched(secret, salt, _WORK), file_key)
    return b"-> scrypt %b %d\n%b\n" % (_base64(salt), _WORK, _base64(wrapped))


def _for_recipient(file_key: bytes, public: bytes) -> bytes:
    ephemeral = X25519PrivateKey.generate()
    share = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    wrapped = _wrap(_derived(shared, share + public, _X25519.encode()), file_key)
    return b"-> X25519 %b\n%b\n" % (_base64(share), _base64(wrapped))


def _opened_header(source: BinaryIO, opener: Opener) -> bytes:
    """The file key, once the header is known to be what its writer wrote."""
    signed, stanzas, mac = _read_header(source)
    for kind, arguments, body in stanzas:
        file_key = _unwrapped(kind, arguments, body, opener)
        if file_key is not None:
            if not hmac.compare_digest(_mac(file_key, signed), mac):
                raise _damaged()
            return file_key
    kinds = {kind for kind, _, _ in stanzas}
    if isinstance(opener, Passphrase):
        why = (
            "is locked for keys" if "scrypt" not in kinds else "does not open with this passphrase"
        )
    else:
        why = "is locked with a passphrase" if "scrypt" in kinds else "is locked for other keys"
    raise UserError(
        Code.INVALID_VALUE,
        f"The backup {why}: name the file of the right one by --passphrase-file or --identity.",
    )


_Stanza = tuple[str, list[bytes], bytes]


def _read_header(source: BinaryIO) -> tuple[bytes, list[_Stanza], bytes]:
    signed = source.read(len(INTRO))
    if signed != INTRO:
        raise _damaged()
    stanzas: list[_Stanza] = []
    for _ in range(_MAX_HEADER_LINES):
        line = source.readline(_MAX_LINE)
        if line.startswith(b"--- "):
            return signed + b"---", stanzas, _unbase64(line[4:-1])
        words = line.rstrip(b"\n").split(b" ")
        if words[0] != b"->" or len(words) < 2:
            raise _damaged()
        lines = _read_body(source)
        signed += line + b"".join(lines)
        body = b"".join(each[:-1] for each in lines)
        stanzas.append((words[1].decode("latin-1"), words[2:], _unbase64(body)))
    raise _damaged()


def _read_body(source: BinaryIO) -> list[bytes]:
    """Full lines, then one that is not."""
    lines: list[bytes] = []
    while not lines or len(lines[-1]) > _COLUMNS:
        line = source.readline(_MAX_LINE)
        if not line.endswith(b"\n") or len(line) > _COLUMNS + 1 or len(lines) > _MAX_HEADER_LINES:
            raise _damaged()
        lines.append(line)
    return lines


def _unwrapped(kind: str, arguments: list[bytes], body: bytes, opener: Opener) -> bytes | None:
    if len(body) != _WRAPPED:
        return None
    if kind == "scrypt" and isinstance(opener, Passphrase) and len(arguments) == 2:
        work = int(arguments[1]) if arguments[1].isdigit() and len(arguments[1]) < 3 else 0
        if not 1 <= work <= _MOST_WORK:
            raise _damaged()
        return _unwrap(_stretched(opener.secret, _unbase64(arguments[0]), work), body)
    if kind == "X25519" and isinstance(opener, Identities) and len(arguments) == 1:
        return _for_identity(_unbase64(arguments[0]), body, opener.keys)
    return None


def _for_identity(share: bytes, body: bytes, keys: Sequence[Secret]) -> bytes | None:
    if len(share) != _KEY:
        raise _damaged()
    for each in keys:
        key = X25519PrivateKey.from_private_bytes(bytes.fromhex(each.reveal()))
        try:
            shared = key.exchange(X25519PublicKey.from_public_bytes(share))
        except ValueError:  # a share of low order
            raise _damaged() from None
        salt = share + key.public_key().public_bytes_raw()
        found = _unwrap(_derived(shared, salt, _X25519.encode()), body)
        if found is not None:
            return found
    return None


def _wrap(key: bytes, file_key: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(bytes(12), file_key, None)


def _unwrap(key: bytes, wrapped: bytes) -> bytes | None:
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), wrapped, None)
    except InvalidTag:
        return None


def _stretched(secret: Secret, salt: bytes, work: int) -> bytes:
    kdf = Scrypt(salt=_SCRYPT + salt, length=_KEY, n=1 << work, r=8, p=1)
    return kdf.derive(secret.reveal().encode())


def _derived(key: bytes, salt: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), _KEY, salt, purpose).derive(key)


def _mac(file_key: bytes, signed: bytes) -> bytes:
    return hmac.digest(_derived(file_key, b"", b"header"), signed, hashlib.sha256)


def _nonce(number: int, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\1" if is_last else b"\0")


def _base64(content: bytes) -> bytes:
    return base64.b64encode(content).rstrip(b"=")


def _unbase64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise _damaged() from None


def _lines(text: str) -> list[str]:
    found = (line.strip() for line in text.splitlines())
    return [line for line in found if line and not line.startswith("#")]


def _damaged() -> UserError:
    return UserError(
        Code.FILE_INVALID,
        "The backup is damaged or cut off: nothing was changed; take another copy of it.",
    )
