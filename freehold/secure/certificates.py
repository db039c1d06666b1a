"""What a certificate calls its owner, in one spelling: the whole of a URI or DNS name that it
was given for, or its subject as RFC 4514 writes it (`CN=web,O=Acme`).

The three cannot be taken for each other: a URI begins with its scheme, a subject with an
attribute and `=`, and a DNS name has neither. A name is compared whole, never by its parts.
"""

import re
from collections.abc import Iterable

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from freehold.core.errors import Code, UserError

MAX_NAMES = 64
_URI = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]+\Z")
_DNS = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*\Z")
_SUBJECT = re.compile(r"([A-Za-z]+|[0-9.]+)=[^\x00-\x1f\x7f]*\Z")


def name(text: str) -> str:
    """One that a certificate may be asked to have. Raises `UserError(INVALID_VALUE)`."""
    if len(text) <= 512 and (_URI.match(text) or _DNS.match(text) or _SUBJECT.match(text)):
        return text
    raise UserError(
        Code.INVALID_VALUE,
        f"{text[:60]!r} is no name of a certificate: write a URI (spiffe://acme/web), a DNS "
        "name in small letters, or a whole subject (CN=web,O=Acme).",
        param="certificates",
    )


def names(certificate: x509.Certificate) -> frozenset[str]:
    """Those that can be written in settings; what has another form names nobody."""
    found = [certificate.subject.rfc4514_string()]
    try:
        known = certificate.extensions.get_extension_for_oid(
            ExtensionOID.SUBJECT_ALTERNATIVE_NAME
        ).value
    except (x509.ExtensionNotFound, ValueError):
        known = None
    if isinstance(known, x509.SubjectAlternativeName):
        found += known.get_values_for_type(x509.UniformResourceIdentifier)[:MAX_NAMES]
        found += [each.lower() for each in known.get_values_for_type(x509.DNSName)[:MAX_NAMES]]
    return frozenset(_spelled(found))


def of_peer(der: bytes) -> frozenset[str]:
    """Of a certificate that was verified. What cannot be read names nobody."""
    try:
        return names(x509.load_der_x509_certificate(der))
    except ValueError:
        return frozenset()


def _spelled(found: Iterable[str]) -> Iterable[str]:
    subject, *others = found
    if _SUBJECT.match(subject):
        yield subject
    for each in others:
        if _URI.match(each) or _DNS.match(each):
            yield each
