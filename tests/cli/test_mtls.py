"""A gateway that asks its clients for certificates: nobody comes in without one, keys and
proxies are bound to names, and what is served follows the files without a restart."""

import json
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from freehold.cli import tls
from freehold.config import load
from freehold.core.errors import UserError
from freehold.secure.authority import Authority
from tests.cli.conftest import Run
from tests.cli.spoken import said
from tests.installation import Installation, environment_of, freehold, start, stock_tiny

WEB, EDGE = "spiffe://acme/web", "spiffe://acme/edge"


class House:
    def __init__(self, home: Path, gateway: Installation) -> None:
        self.home, self.gateway, self.reloads = home, gateway, 0

    def context(self, client: Path | None = None, authority: str = "ca.pem") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.home / "tls" / authority)
        if client is not None:
            context.load_cert_chain(client)
        return context

    def client(self, name: str) -> Path:
        """The certificate of that name, of the authority that is trusted."""
        issued = Authority(self.home / "tls").client(name)
        file = self.home / "tls" / f"{abs(hash(name))}.pem"
        file.write_bytes(issued.certificate + issued.key)
        return file

    def get(self, path: str, client: Path | None, key: str = "", **headers: str) -> httpx2.Response:
        if key:
            headers["authorization"] = f"Bearer {key}"
        return httpx2.get(
            f"{self.gateway.url}{path}", headers=headers, verify=self.context(client),
            trust_env=False,
        )  # fmt: skip

    def logged(self, event: str) -> list[dict[str, Any]]:
        try:
            lines = (self.home / "logs" / "gateway.jsonl").read_text().splitlines()
        except FileNotFoundError:  # its first line comes with a delay
            return []
        return [line for each in lines if event in each for line in [json.loads(each)]]

    def until_logged(self, event: str, count: int) -> None:
        while len(self.logged(event)) < count:
            assert self.gateway.process.poll() is None
            time.sleep(0.05)

    def served(self) -> bytes:
        """The certificate that a new connection is greeted with."""
        with httpx2.Client(verify=self.context(self.client(WEB)), trust_env=False) as client:
            answer = client.get(f"{self.gateway.url}/healthz")
            spoken = answer.extensions["network_stream"].get_extra_info("ssl_object")
            return bytes(spoken.getpeercert(True))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home = tmp_path_factory.mktemp("house")
    stock_tiny(home)
    made = freehold(environment_of(home), "tls", "init", "--json")
    assert made.returncode == 0, made.stderr
    said = json.loads(made.stdout)
    server = {"tls_certificate": said["certificate"], "tls_key": said["key"],
              "client_ca": said["authority"], "proxy_certificates": [EDGE]}  # fmt: skip
    (home / "freehold.yaml").write_text(json.dumps({"server": server}))
    gateway = start(home, "--engine", "fake", "--model", "tiny")
    yield House(home, gateway)
    gateway.stop()


def test_nobody_comes_in_without_a_certificate_of_the_authority(
    house: House, tmp_path: Path
) -> None:
    foreign = Authority(tmp_path / "other").client(WEB)
    (tmp_path / "foreign.pem").write_bytes(foreign.certificate + foreign.key)
    for client in (None, tmp_path / "foreign.pem"):
        with pytest.raises(httpx2.TransportError):
            house.get("/healthz", client, house.gateway.key)
    assert house.get("/healthz", house.client(WEB)).is_success
    no_key = house.get("/v1/models", house.client(WEB))
    assert no_key.json()["error"]["code"] == "missing_api_key", "a certificate is no key"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_of_tls_are_not_spoken(house: House, version: ssl.TLSVersion) -> None:
    context = house.context(house.client(WEB))
    context.set_ciphers("ALL:@SECLEVEL=0")
    url = f"{house.gateway.url}/healthz"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert httpx2.get(url, verify=context, trust_env=False).is_success
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = context.maximum_version = version
    with pytest.raises(httpx2.TransportError):
        httpx2.get(url, verify=context, trust_env=False)


def test_weak_ciphers_are_not_spoken(house: House) -> None:
    context = house.context(house.client(WEB))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0")
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"{house.gateway.url}/healthz", verify=context, trust_env=False)


def test_a_key_is_heard_only_from_the_certificate_that_it_was_made_for(
    house: House, commands: Callable[[Path], Run]
) -> None:
    run = commands(house.home)
    made = said(run, "key", "create", "bound", "--certificate", WEB)
    assert made["certificates"] == [WEB]
    subject = said(run, "key", "create", "subject", "--certificate", f"CN={EDGE}")
    assert house.get("/v1/models", house.client(WEB), made["key"]).is_success
    assert house.get("/v1/models", house.client(EDGE), subject["key"]).is_success
    for other in (EDGE, "spiffe://acme/web2", "spiffe://acme/we", "spiffe://acme/web/x",
                  "spiffe://evil/web", "SPIFFE://acme/web", "web"):  # fmt: skip
        refused = house.get("/v1/models", house.client(other), made["key"])
        assert refused.status_code == 403, other
        assert refused.json()["error"]["code"] == "certificate_not_allowed"
    assert house.get("/v1/models", house.client(WEB), made["key"]).is_success
    bad = run("key", "create", "x", "--certificate", "no name", "--json")
    assert json.loads(bad.stdout)["error"]["code"] == "invalid_value"
    new = said(run, "key", "rotate", made["id"])
    assert new["certificates"] == [WEB], "its successor is bound as it was"


def test_only_a_proxy_with_its_certificate_says_whom_a_request_is_from(
    house: House, commands: Callable[[Path], Run]
) -> None:
    key = said(commands(house.home), "key", "create", "x", "--network", "192.0.2.0/24")["key"]
    names = {"x-forwarded-for": "192.0.2.7", "x-real-ip": "192.0.2.7",
             "forwarded": "for=192.0.2.7", "x-forwarded-client-cert": f"URI={EDGE}",
             "ssl-client-subject-dn": f"CN={EDGE}"}  # fmt: skip
    assert house.get("/v1/models", house.client(EDGE), key, **names).is_success
    for client, headers in (
        (WEB, names), (EDGE, {}), (EDGE, {"x-real-ip": "192.0.2.7"}),
        (EDGE, {"x-forwarded-for": "203.0.113.9"}),
        (EDGE, {"x-forwarded-for": "192.0.2.7, 203.0.113.9"}),
    ):  # fmt: skip
        refused = house.get("/v1/models", house.client(client), key, **headers)
        assert refused.json()["error"]["code"] == "address_not_allowed", (client, headers)


def test_a_new_certificate_is_served_without_a_restart_and_a_broken_one_is_not(
    house: House, commands: Callable[[Path], Run]
) -> None:
    before, run = house.served(), commands(house.home)
    said(run, "tls", "init")
    house.until_logged("tls_reloaded", 1)
    house.reloads = len(house.logged("tls_reloaded"))
    renewed = house.served()
    assert renewed != before
    (house.home / "tls" / "server.pem").write_bytes(b"half a certif")
    house.until_logged("tls_not_reloaded", 1)
    assert house.served() == renewed
    said(run, "tls", "init")
    house.until_logged("tls_reloaded", house.reloads + 1)
    house.reloads += 1
    assert "TLS cannot be served with" in house.logged("tls_not_reloaded")[0]["reason"]


@pytest.mark.parametrize("how", ["gone", "empty", "noise"])
def test_clients_are_asked_for_certificates_also_when_the_authority_is_lost(
    house: House, how: str
) -> None:
    """The old one stays in force: checks do not go with a file."""
    file, kept = house.home / "tls" / "ca.pem", house.home / "tls" / "kept.pem"
    mine, count = house.client(WEB), len(house.logged("tls_not_reloaded"))
    shutil.copy(file, kept)
    file.unlink()
    if how != "gone":
        file.write_bytes(b"" if how == "empty" else b"noise")
    house.until_logged("tls_not_reloaded", count + 1)
    url = f"{house.gateway.url}/healthz"
    try:
        with pytest.raises(httpx2.TransportError):
            httpx2.get(url, verify=house.context(None, "kept.pem"), trust_env=False)
        context = house.context(mine, "kept.pem")
        assert httpx2.get(url, verify=context, trust_env=False).is_success
        with pytest.raises(UserError, match=r"cannot be used as server\.client_ca"):
            tls.check(load.settings(house.home / "freehold.yaml", {}))  # what a start does first
    finally:
        kept.replace(file)
        house.until_logged("tls_reloaded", house.reloads + 1)
        house.reloads += 1
