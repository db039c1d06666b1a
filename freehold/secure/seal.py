"""Answers kept for a retry, readable only with the caller's own key.

The key that seals is derived from the API key and the Idempotency-Key, neither of
which is stored: who steals the database or administers it reads nothing.
"""

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from freehold.core.errors import Fault

_NONCE_BYTES = 12  # NIST SP 800-38D, 8.2.2: random 96-bit nonces


def seal(api_key: str, idempotency_key: str, content: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(_derive(api_key, idempotency_key)).encrypt(nonce, content, None)


def unseal(api_key: str, idempotency_key: str, sealed: bytes) -> bytes:
    nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        return AESGCM(_derive(api_key, idempotency_key)).decrypt(nonce, ciphertext, None)
    except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
        raise Fault("a stored reply does not open with the key that claimed it") from None


def _derive(api_key: str, idempotency_key: str) -> bytes:
    parts = b"freehold reply\0" + api_key.encode() + b"\0" + idempotency_key.encode()
    return hashlib.sha256(parts).digest()
