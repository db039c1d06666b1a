"""Signatures in the format of OpenSSF model-signing 1.0: a Sigstore bundle of version 0.3, in it
a DSSE envelope, in that an in-toto statement, and in that the SHA-256 of each file.

Made and read here by the specifications alone: the project's own library would bring fifteen
packages along, and tests hold both against each other. Read are those by a key, of files as
wholes; what it has besides (certificates, transparency logs, parts of files) is refused by name.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from freehold.core.errors import Code, UserError
from freehold.core.signature import SIGNATURE

MAX_BYTES = 256 * 1024
_MEDIA = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()
}  # fmt: skip
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey
PublicKey: TypeAlias = ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Bundle:
    """A signature as it was read: nobody has checked yet who made it. `files` are digests by
    name, `key` the hash of the public key, None in those of older signers."""

    key: str | None
    files: Mapping[str, str]
    payload: bytes
    signature: bytes

    def is_by(self, key: PublicKey) -> bool:
        try:
            key.verify(self.signature, _encoded(self.payload), ec.ECDSA(_HASHES[key.curve.name]))
        except InvalidSignature:
            return False
        return True


def new_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem_of(key: PublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def id_of(key: PublicKey) -> str:
    """As bundles name keys."""
    return hashlib.sha256(pem_of(key)).hexdigest()


def read_public(pem: bytes) -> PublicKey:
    """Raises `ValueError` for what is no key of a curve that can be verified."""
    try:
        key = serialization.load_pem_public_key(pem)
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    if not isinstance(key, PublicKey) or key.curve.name not in _HASHES:
        raise ValueError("it is not of the curve P-256, P-384 or P-521")
    return key


def signed(name: str, files: Mapping[str, str], key: PrivateKey) -> str:
    """`files` are digests by name, `name` what they are called together. The same give the same
    bytes (RFC 6979)."""
    ordered = sorted(files)
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root(files[each] for each in ordered)}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE],
            },
            "resources": [
                {"name": each, "algorithm": "sha256", "digest": files[each].partition(":")[2]}
                for each in ordered
            ],
        },
    }
    payload = json.dumps(statement, ensure_ascii=False).encode()
    made = key.sign(_encoded(payload), _way(_HASHES[key.curve.name]))
    bundle = {
        "mediaType": _MEDIA,
        "verificationMaterial": {
            "publicKey": {"hint": id_of(key.public_key())},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD,
            "signatures": [{"sig": base64.b64encode(made).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle)


class Unreadable(Exception):
    """With the reason, which goes behind "the signature is not accepted"."""


def read(text: bytes) -> Bundle:
    """Raises `FILE_REFUSED` with the reason."""
    try:
        return parsed(text)
    except Unreadable as error:
        raise refused(str(error)) from None


def parsed(text: bytes) -> Bundle:
    """Raises `Unreadable`."""
    if len(text) > MAX_BYTES:
        raise Unreadable(f"it is longer than {MAX_BYTES // 1024} KiB")
    try:
        return _read(json.loads(text))
    except (ValueError, RecursionError, KeyError, TypeError, IndexError, AttributeError):
        why = "it is no signature in the format of OpenSSF model-signing"
        raise Unreadable(why) from None


def _read(bundle: Any) -> Bundle:
    material, envelope = bundle["verificationMaterial"], bundle["dsseEnvelope"]
    if bundle["mediaType"] != _MEDIA or envelope["payloadType"] != _PAYLOAD:
        raise ValueError
    if "publicKey" not in material:
        raise Unreadable(
            "it was made with a certificate, and only those by a key can be checked here"
        )
    hint = material["publicKey"].get("hint")
    (found,) = envelope["signatures"]
    payload = base64.b64decode(envelope["payload"], validate=True)
    statement = json.loads(payload)
    if statement["_type"] != _STATEMENT or statement["predicateType"] != _PREDICATE:
        raise Unreadable(f"it is no {_PREDICATE}")
    return Bundle(
        key=str(hint) if hint else None,
        files=_files(statement),
        payload=payload,
        signature=base64.b64decode(found["sig"], validate=True),
    )


def _files(statement: Any) -> dict[str, str]:
    (subject,), predicate = statement["subject"], statement["predicate"]
    way, found = predicate["serialization"], dict[str, str]()
    if way["method"] != "files" or way["hash_type"] != "sha256":
        raise Unreadable("it does not have the SHA-256 of whole files")
    for each in predicate["resources"]:
        name, digest = each["name"], each["digest"]
        if each["algorithm"] != "sha256" or not _HEX.match(digest) or name in found:
            raise ValueError
        found[name] = f"sha256:{digest}"
    if subject["digest"]["sha256"] != _root(found.values()):
        raise ValueError
    return found


def _root(digests: Any) -> str:
    whole = hashlib.sha256()
    for each in digests:
        whole.update(bytes.fromhex(each.partition(":")[2]))
    return whole.hexdigest()


def _way(algorithm: hashes.HashAlgorithm) -> ec.ECDSA:
    try:
        return ec.ECDSA(algorithm, deterministic_signing=True)
    except UnsupportedAlgorithm:  # an OpenSSL before 3.2
        return ec.ECDSA(algorithm)


def _encoded(payload: bytes) -> bytes:
    """What a DSSE envelope's signature is over."""
    return b"DSSEv1 %d %b %d %b" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)


def refused(why: str) -> UserError:
    return UserError(
        Code.FILE_REFUSED,
        f"The signature {SIGNATURE} is not accepted: {why}. Take the file away to add the adapter "
        "unsigned.",
        param="signature",
    )
