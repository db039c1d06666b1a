"""A gateway with TLS: its own commands trust the very certificate that it serves with."""

import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from freehold.config.home import Home, write_private
from tests.cli.conftest import Run
from tests.installation import Installation, start, stock_tiny


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(folder: Path, file: str) -> tuple[Path, Path]:
    """One for `gateway.example`, as a company's authority that nobody here knows signs it;
    and its key."""
    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(_name("gateway.example"))
        .issuer_name(_name("an authority"))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("gateway.example")]), False)
        .sign(authority, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    certificate, key = folder / f"{file}.pem", folder / f"{file}.key"
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        own.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, key


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Installation]:
    certificate, key = _certificate(tmp_path / "tls", "own")
    home = tmp_path / "home"
    stock_tiny(home)
    tls = {"tls_certificate": str(certificate), "tls_key": str(key)}
    (home / "freehold.yaml").write_text(json.dumps({"server": tls}))
    running = start(home, "--engine", "fake", "--model", "tiny")
    yield running
    running.stop()


def test_commands_reach_it_and_send_its_key_to_nobody_else(
    gateway: Installation, tmp_path: Path, commands: Callable[[Path], Run]
) -> None:
    assert gateway.url.startswith("https://127.0.0.1:")
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{gateway.url}/healthz", trust_env=False)
    run = commands(gateway.home)
    assert json.loads(run("status", "--json").stdout)["url"] == gateway.url
    assert json.loads(run("chat", "hi", "--json").stdout)["content"]
    assert json.loads(run("key", "create", "x", "--json").stdout)["key"]

    record = json.loads(Home(gateway.home).gateway_record.read_text())
    other, _ = _certificate(tmp_path / "tls", "other")
    changed = json.dumps(record | {"certificate": str(other)}).encode()
    write_private(Home(gateway.home).gateway_record, changed)
    for words in (("status",), ("chat", "hi", "--model", "tiny"), ("key", "list")):
        ended = run(*words, "--json")
        assert ended.exit_code == 1
        assert json.loads(ended.stdout)["error"]["code"] == "gateway_not_running"
    (tmp_path / "tls" / "other.pem").unlink()
    ended = run("status", "--json")
    assert json.loads(ended.stdout)["error"]["code"] == "config_invalid"
