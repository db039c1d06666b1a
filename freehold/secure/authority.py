"""A certificate authority for those who have none: a key and a certificate in a folder, and
what it signs. Nobody trusts it unless somebody tells them to."""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from freehold.config.home import write_private
from freehold.core.errors import Code, UserError

_AUTHORITY_DAYS, _SERVER_DAYS, _CLIENT_DAYS = 3650, 397, 397
_CURVE = ec.SECP256R1()
_HOUR = datetime.timedelta(hours=1)  # for clocks that are behind

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """`ca.pem` and `ca.key` in a folder."""

    def __init__(self, folder: Path) -> None:
        """Makes both when neither is there. Raises `UserError(CONFIG_INVALID)` when only one
        is, or they cannot be read: another authority would be another's, to all who trust
        this one."""
        self.certificate_file, key_file = folder / "ca.pem", folder / "ca.key"
        if not self.certificate_file.exists() and not key_file.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = _new_authority()
            write_private(key_file, made.key)
            write_private(self.certificate_file, made.certificate)
        try:
            key = serialization.load_pem_private_key(key_file.read_bytes(), None)
            self._certificate = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
        except (OSError, ValueError, TypeError) as error:
            raise _broken(folder, error) from None
        if not isinstance(key, Key) or key.public_key() != self._certificate.public_key():
            raise _broken(folder, None)
        self._key = key

    def server(self, hosts: Sequence[str]) -> Issued:
        """For a server that is reached under these names and addresses."""
        return self._issue(hosts[0], [_host(each) for each in hosts], for_server=True)

    def client(self, name: str) -> Issued:
        """For a client, called by a URI such as spiffe://acme/web, or by a DNS name."""
        known: x509.GeneralName = (
            x509.UniformResourceIdentifier(name) if "://" in name else x509.DNSName(name)
        )
        return self._issue(name, [known], for_server=False)

    def _issue(self, name: str, known: Sequence[x509.GeneralName], *, for_server: bool) -> Issued:
        key = ec.generate_private_key(_CURVE)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if for_server else ExtendedKeyUsageOID.CLIENT_AUTH
        days = _SERVER_DAYS if for_server else _CLIENT_DAYS
        made = (
            _unsigned(_called(name), self._certificate.subject, key, days)
            .add_extension(x509.SubjectAlternativeName(known), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return Issued(made.public_bytes(serialization.Encoding.PEM), _pem(key))


def passing(name: str) -> Issued:
    """A client's certificate that nobody signed but itself, for who is told of it alone."""
    key = ec.generate_private_key(_CURVE)
    called = _called(name)
    made = (
        _unsigned(called, called, key, _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Issued(made.public_bytes(serialization.Encoding.PEM), _pem(key))


def _new_authority() -> Issued:
    key = ec.generate_private_key(_CURVE)
    called = _called("Freehold local authority")
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        _unsigned(called, called, key, _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Issued(made.public_bytes(serialization.Encoding.PEM), _pem(key))


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: Key, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _HOUR)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _broken(folder: Path, error: Exception | None) -> UserError:
    why = getattr(error, "strerror", None) or "they are no certificate and its key"
    return UserError(
        Code.CONFIG_INVALID,
        f"The authority {folder / 'ca.pem'} and its key ca.key cannot be used ({why}): put both "
        "back, or move both away to make a new one that everybody must be told of.",
    )
