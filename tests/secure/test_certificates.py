"""What a certificate calls its owner: whole names, of three kinds that never mix."""

from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import Code, UserError
from freehold.secure import certificates
from freehold.secure.authority import Authority, passing


def _names(pem: bytes) -> frozenset[str]:
    return certificates.names(x509.load_pem_x509_certificate(pem))


def test_a_certificate_has_its_subject_and_each_of_its_names(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    assert _names(authority.client("spiffe://acme/web").certificate) == {
        "CN=spiffe://acme/web", "spiffe://acme/web"
    }  # fmt: skip
    assert _names(authority.server(["Web.acme.internal".lower(), "10.0.0.7"]).certificate) == {
        "CN=web.acme.internal", "web.acme.internal"
    }  # fmt: skip
    assert _names(passing("nobody").certificate) == {"CN=nobody"}
    assert certificates.of_peer(b"noise") == frozenset()


def test_an_authority_is_made_once_and_half_of_one_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    first = Authority(folder).certificate_file.read_bytes()
    assert Authority(folder).certificate_file.read_bytes() == first
    assert (folder / "ca.key").stat().st_mode & 0o077 == 0
    kept = (folder / "ca.key").read_bytes()
    for change in (b"", kept[:90], passing("x").key):
        (folder / "ca.key").write_bytes(change)
        with pytest.raises(UserError, match="put both back"):
            Authority(folder)
    (folder / "ca.key").unlink()
    with pytest.raises(UserError, match="put both back"):
        Authority(folder)
    assert (folder / "ca.pem").read_bytes() == first


@pytest.mark.parametrize("text", ["spiffe://acme/web", "web.acme.internal", "*.acme.internal",
                                  "CN=web,O=Acme Corp", "2.5.4.3=x"])  # fmt: skip
def test_a_name_is_written_as_a_certificate_has_it(text: str) -> None:
    assert certificates.name(text) == text


@pytest.mark.parametrize(
    "text", ["", "Web.acme", "a b", "web..acme", "spiffe://acme/аcme", "spiffe://a b", "=x",
             "CN=a\nCN=b", "x" * 513, "web.acme\n", "spiffe://acme/web\n"],
)  # fmt: skip
def test_what_no_certificate_can_be_called_is_refused(text: str) -> None:
    with pytest.raises(UserError) as refused:
        certificates.name(text)
    assert refused.value.code is Code.INVALID_VALUE


@given(text=st.text(max_size=15))
def test_a_common_name_is_never_taken_for_another_kind_of_name(text: str) -> None:
    """Whoever may choose a subject could otherwise choose a name that a proxy has."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"x{text}")])
    spelled = subject.rfc4514_string()
    assert spelled.startswith("CN=")
    assert not certificates._URI.match(spelled)
    assert not certificates._DNS.match(spelled)
