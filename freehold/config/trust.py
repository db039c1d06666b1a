"""Whom Freehold believes when it calls others: the system's authorities, and a company's own."""

import json
import ssl
from pathlib import Path

from freehold.config.home import Home
from freehold.core.errors import Code, UserError

Where = tuple[str, ssl.SSLContext | bool]  # a URL, and what is believed there
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})  # what never leaves this machine


def outgoing(ca_file: str | None) -> ssl.SSLContext:
    """Verifies names and certificates always. Raises `UserError(CONFIG_INVALID)` for a file
    without certificates."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        add_authorities(context, Path(ca_file).expanduser(), "network.ca_file")
    return context


def add_authorities(context: ssl.SSLContext, path: Path, setting: str) -> None:
    """Those of a file of PEM certificates. One that is missing or empty must not leave a
    check out, so it raises `UserError(CONFIG_INVALID)`."""
    try:
        context.load_verify_locations(cafile=str(path))
    except OSError as error:  # of which ssl.SSLError is one
        why = "no certificates in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise _unusable(path, setting, str(why)) from None
    if not context.cert_store_stats()["x509"]:
        raise _unusable(path, setting, "no certificates in it")


def of_gateway(certificate: str, client: str | None) -> ssl.SSLContext:
    """A gateway of this machine by the file that it serves with, as its name is another; `client`
    is the one that it made for whom it lets in from here."""
    try:
        context = ssl.create_default_context(cafile=certificate)
        if client is not None:
            context.load_cert_chain(client, password="")
    except OSError:  # of which ssl.SSLError is one
        raise UserError(
            Code.CONFIG_INVALID,
            f"{certificate} cannot be read: put back the certificate that the gateway serves with.",
        ) from None
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _unusable(path: Path, setting: str, why: str) -> UserError:
    return UserError(
        Code.CONFIG_INVALID,
        f"{path} cannot be used as {setting} ({why}): put the certificates of the authorities "
        "there, as PEM.",
    )


def gateway_here(home: Home) -> Where:
    """The gateway of this home as it says itself, which may be another one the next time; where
    nobody listens, if there is none."""
    try:
        record = json.loads(home.gateway_record.read_bytes())
        url, certificate = str(record["url"]), record.get("certificate")
    except (OSError, ValueError, KeyError, TypeError):
        return "http://127.0.0.1:1", True
    if not certificate:
        return url, True
    return url, of_gateway(certificate, record.get("client_certificate"))
