"""What is signed here, the real library verifies, and what it signs is verified here; a signature
holds over the very files, and only by a key that is trusted."""

import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from model_signing import signing, verifying

from freehold.catalog import bundle
from freehold.catalog.adapters import Adapters, Wanted, stage
from freehold.catalog.pull import pull
from freehold.catalog.signatures import OURS, Signatures
from freehold.catalog.store import ModelStore
from freehold.config.schema import SupplySettings
from freehold.core.adapter import Adapter
from freehold.core.binding import Environment
from freehold.core.clock import SystemClock
from freehold.core.errors import UserError
from freehold.core.manifest import MANIFEST
from freehold.core.peft import RankLimit
from freehold.core.signature import SIGNATURE
from freehold.store.sql import SqlStore
from tests.catalog.making import decoder_bytes, peft_folder, write


class Shelf:
    """A home with a base, and a publisher elsewhere who signs with the real library."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir()
        self.store = SqlStore(self.home / "freehold.db")
        self.models = ModelStore(self.home)
        file = write(folder / "base.gguf", decoder_bytes())
        pull(self.models, self.home, f"file:{file}", progress=lambda *_: None)
        self.private, self.public = folder / "publisher.key", folder / "publisher.pem"
        self.publish_with(ec.SECP256R1())

    def publish_with(self, curve: ec.EllipticCurve) -> None:
        key = ec.generate_private_key(curve)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.private.write_bytes(pem)
        self.public.write_bytes(bundle.pem_of(key.public_key()))

    def published(self, name: str, seed: int = 1, **beside: bytes) -> Path:
        folder = peft_folder(self.folder / name, seed)
        for other, content in beside.items():
            (folder / other.replace("__", ".")).write_bytes(content)
        signer = signing.Config().use_elliptic_key_signer(private_key=self.private)
        signer.sign(folder, folder / SIGNATURE)
        return folder

    def signatures(self, *trusted: Path, require: str | None = None) -> Signatures:
        given = {"trusted_keys": list(map(str, trusted)), "require_signature": [require or "prod"]}
        settings = SupplySettings.model_validate(given)
        return Signatures(self.home / "signing", self.store, settings, SystemClock())

    def add(
        self,
        folder: Path,
        *trusted: Path,
        job: str | None = None,
        where: Environment = Environment.DEV,
    ) -> tuple[Adapters, Adapter]:
        signatures = self.signatures(*trusted)
        adapters = Adapters(
            self.home, self.store, self.models, signatures, SystemClock(), lambda _: RankLimit(16)
        )
        wanted = Wanted(stage(self.home, folder), "base", folder.name, "test", job)
        return adapters, adapters.add("ten_a", where, wanted)

    def base(self) -> str:
        return self.models.list()[0].digest


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def _manifest(shelf: Shelf, **says: Any) -> bytes:
    return json.dumps({"base_digest": shelf.base(), "job": "job_x", **says}).encode()


def test_the_real_library_verifies_what_a_job_here_made(shelf: Shelf, tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "made")
    (folder / MANIFEST).write_bytes(_manifest(shelf))
    adapters, adapter = shelf.add(folder, job="job_x")
    (signature,) = adapters.signatures.of(adapter)
    (key,) = [each for each in adapters.signatures.keys if each[1] == signature.key]
    (tmp_path / "our.pem").write_bytes(bundle.pem_of(key[2].key))
    assert signature.manifest is not None
    (folder / MANIFEST).write_text(signature.manifest)
    (folder / SIGNATURE).write_text(signature.bundle)
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "our.pem")
    verifier.verify(folder, folder / SIGNATURE)
    (folder / "adapter_config.json").write_bytes(b"{}")
    with pytest.raises(ValueError, match="mismatch"):
        verifier.verify(folder, folder / SIGNATURE)
    found = adapters.verified(adapter)
    assert found.holds
    assert [each.by for each in found.signatures] == [OURS]
    assert (shelf.home / "signing").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_what_the_real_library_signed_is_verified_here(
    shelf: Shelf, curve: ec.EllipticCurve
) -> None:
    shelf.publish_with(curve)
    folder = shelf.published("theirs", README__md=b"# hello")
    adapters, adapter = shelf.add(folder, shelf.public)
    found = adapters.verified(adapter)
    assert found.holds
    assert [each.by for each in found.signatures] == ["publisher.pem"]


def test_who_publishes_adapters_says_nothing_of_revisions_and_gates(shelf: Shelf) -> None:
    key = load_pem_private_key(shelf.private.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    said = bundle.signed("revision", {"gate.json": "sha256:" + "0" * 64}, key).encode()
    publisher = shelf.signatures(shelf.public)
    with pytest.raises(bundle.Unreadable, match="trusted_installations"):
        publisher.vouched(said)
    assert not publisher.is_installation(bundle.id_of(key.public_key()), 0)
    settings = SupplySettings(trusted_installations=(str(shelf.public),))
    posing = shelf.public.rename(shelf.folder / OURS)
    assert not shelf.signatures(posing).is_installation(bundle.id_of(key.public_key()), 0)
    shelf.public = posing.rename(shelf.folder / "publisher.pem")
    believed = Signatures(shelf.home / "signing", shelf.store, settings, SystemClock())
    assert believed.vouched(said).signer.by == "publisher.pem"
    assert bundle.id_of(key.public_key()) in [id for _, id, _ in believed.keys], "for adapters, too"


def test_one_that_nobody_trusts_here_is_not_taken_in(shelf: Shelf) -> None:
    folder = shelf.published("theirs")
    with pytest.raises(UserError, match=r"not trusted here \(supply.trusted_keys\)"):
        shelf.add(folder)
    (folder / SIGNATURE).unlink()
    adapters, adapter = shelf.add(folder)
    assert not adapters.verified(adapter).holds
    assert adapters.signatures.why_not(adapter, ()) is None, "dev asks for none"


def _other_weights(folder: Path, shelf: Shelf) -> None:
    peft_folder(folder, 9)


def _unsigned_manifest(folder: Path, shelf: Shelf) -> None:
    (folder / MANIFEST).write_bytes(_manifest(shelf))


def _of_another_folder(folder: Path, shelf: Shelf) -> None:
    other = shelf.published("other", 5)
    (folder / SIGNATURE).write_bytes((other / SIGNATURE).read_bytes())


def _changed(change: Callable[[Any], None]) -> Callable[[Path, Shelf], None]:
    def spoil(folder: Path, shelf: Shelf) -> None:
        found = json.loads((folder / SIGNATURE).read_bytes())
        change(found)
        (folder / SIGNATURE).write_text(json.dumps(found))

    return spoil


def _payload(change: Callable[[Any], None]) -> Callable[[Path, Shelf], None]:
    def of_envelope(found: Any) -> None:
        statement = json.loads(base64.b64decode(found["dsseEnvelope"]["payload"]))
        change(statement)
        again = base64.b64encode(json.dumps(statement).encode()).decode()
        found["dsseEnvelope"]["payload"] = again

    return _changed(of_envelope)


def _no_json(folder: Path, shelf: Shelf) -> None:
    (folder / SIGNATURE).write_bytes(b"PK")


def _endless(folder: Path, shelf: Shelf) -> None:
    (folder / SIGNATURE).write_bytes(b" " * (bundle.MAX_BYTES + 1))


def _with_a_certificate(found: Any) -> None:
    material = found["verificationMaterial"]
    del material["publicKey"]
    material["certificate"] = {"rawBytes": ""}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_other_weights, "over another adapter_model.safetensors"),
        (_of_another_folder, "over another adapter_model.safetensors"),
        (_unsigned_manifest, "not over freehold.json"),
        (_payload(lambda s: s["predicate"].update(x=1)), "was changed"),
        (_payload(lambda s: s.update(predicateType="x")), "is no https://model_signing"),
        (_payload(lambda s: s["predicate"]["resources"].pop()), "no signature in the format"),
        (
            _payload(lambda s: s["predicate"]["serialization"].update(method="shards")),
            "SHA-256 of whole files",
        ),
        (_changed(lambda b: b["dsseEnvelope"]["signatures"].clear()), "no signature in the format"),
        (_changed(lambda b: b.update(mediaType="x")), "no signature in the format"),
        (_changed(_with_a_certificate), "with a certificate"),
        (_no_json, "no signature in the format"),
        (_endless, "longer than 256 KiB"),
    ],
)
def test_a_signature_that_does_not_hold_is_refused_with_the_reason(
    shelf: Shelf, spoil: Callable[[Path, Shelf], None], why: str
) -> None:
    folder = shelf.published("theirs")
    spoil(folder, shelf)
    with pytest.raises(UserError, match=why):
        shelf.add(folder, shelf.public)
    assert shelf.store.adapters("ten_a", Environment.DEV, 10) == []


def test_a_signature_without_the_keys_name_is_held_against_all_that_are_trusted(
    shelf: Shelf,
) -> None:
    folder = shelf.published("theirs")
    _changed(lambda b: b["verificationMaterial"]["publicKey"].clear())(folder, shelf)
    adapters, adapter = shelf.add(folder, shelf.public)
    assert adapters.verified(adapter).holds


def test_what_was_said_of_an_adapter_is_signed_with_it(shelf: Shelf) -> None:
    folder = shelf.published("theirs", freehold__json=_manifest(shelf, recipe={"rank": 2}))
    adapters, adapter = shelf.add(folder, shelf.public)
    assert adapters.verified(adapter).holds
    assert adapter.manifest is not None
    lying = dataclasses.replace(adapter.manifest, recipe={"rank": 3})
    changed = dataclasses.replace(adapter, manifest=lying)
    reason = adapters.signatures.why_not(changed, adapters.signatures.of(adapter))
    assert reason is not None
    assert "not what was signed" in reason


def test_where_signatures_are_required_an_adapter_without_one_stays_out_until_somebody_signs(
    shelf: Shelf, tmp_path: Path
) -> None:
    adapters, adapter = shelf.add(peft_folder(tmp_path / "plain"), where=Environment.PROD)
    with pytest.raises(UserError, match="prod takes what is signed alone"):
        adapters.signatures.check(adapter)
    adapters.sign(adapter)
    adapters.signatures.check(adapter)
    adapters.path(adapter.config_digest).chmod(0o600)
    adapters.path(adapter.config_digest).write_bytes(b"{}")
    found = adapters.verified(adapter)
    assert not found.holds
    assert found.spoilt == "adapter_config.json is missing or was changed on the disk"
    with pytest.raises(UserError, match="changed on the disk"):
        adapters.sign(adapter)


def test_what_another_key_signed_before_stays_valid(shelf: Shelf, tmp_path: Path) -> None:
    adapters, first = shelf.add(peft_folder(tmp_path / "first"), job="job_1")
    before = adapters.signatures.current
    adapters.signatures.rotate()
    assert adapters.signatures.current != before
    _, second = shelf.add(peft_folder(tmp_path / "second", 2), job="job_2")
    for each in (first, second):
        assert adapters.verified(each).holds
    assert {s.key for e in (first, second) for s in adapters.signatures.of(e)} == {
        before, adapters.signatures.current
    }  # fmt: skip


def _of_revoked(shelf: Shelf, tmp_path: Path) -> tuple[Adapters, list[Adapter], str]:
    """Two that a job made, by a key which signs no more."""
    adapters, first = shelf.add(peft_folder(tmp_path / "first"), job="job_1")
    _, second = shelf.add(peft_folder(tmp_path / "second", 2), job="job_2")
    key = adapters.signatures.current
    for each in (first, second):
        assert adapters.verified(each).holds, "which is remembered"
    adapters.signatures.rotate()
    return adapters, [first, second], key


def test_what_a_revoked_key_signed_counts_no_more_until_somebody_signs_it(
    shelf: Shelf, tmp_path: Path
) -> None:
    adapters, both, key = _of_revoked(shelf, tmp_path)
    beside = shelf.signatures()  # of another process, which began before
    assert beside.why_not(both[0], beside.of(both[0])) is None
    revoked = adapters.signatures.revoke(key[:16], 0)
    assert (revoked.key, [each.name for each in revoked.kept_out]) == (key, ["first", "second"])
    for signatures in (adapters.signatures, beside, shelf.signatures()):
        for each in both:
            with pytest.raises(UserError, match=f"by the key {key[:16]}, which was revoked here"):
                signatures.check(each)
    adapters.sign(both[0])
    assert adapters.verified(both[0]).holds
    assert [each.reason is None for each in adapters.verified(both[0]).signatures] == [False, True]
    assert [each.name for each in adapters.signatures.revoke(key, 0).kept_out] == ["second"]
    assert adapters.signatures.signer(adapters.signatures.current).by == OURS


def test_what_was_recorded_before_a_key_was_stolen_stays_valid(
    shelf: Shelf, tmp_path: Path
) -> None:
    adapters, both, key = _of_revoked(shelf, tmp_path)
    signatures = adapters.signatures
    times = [signatures.of(each)[0].made_at_us for each in both]
    assert [each.name for each in signatures.revoke(key, times[1]).kept_out] == ["second"]
    assert adapters.verified(both[0]).holds
    with pytest.raises(UserError, match="from an earlier time on already"):
        signatures.revoke(key, times[1] + 1)
    assert [each.name for each in signatures.revoke(key, times[1]).kept_out] == ["second"]
    assert [each.name for each in signatures.revoke(key, times[0]).kept_out] == ["first", "second"]
    assert [signatures.is_installation(key, at) for at in (times[0] - 1, times[0])] == [True, False]


def test_nothing_comes_in_with_a_signature_of_a_revoked_key(shelf: Shelf, tmp_path: Path) -> None:
    adapters, both, key = _of_revoked(shelf, tmp_path)
    made = adapters.signatures.of(both[0])[0]
    said, told = made.bundle.encode(), (made.key, made.bundle, made.manifest)
    assert adapters.signatures.carried(both[0], [told])
    adapters.signatures.revoke(key, made.made_at_us + 1)
    adapters.signatures.check(both[0])
    why = f"by the key {key[:16]}, which was revoked here"
    folder = peft_folder(tmp_path / "again")
    (folder / SIGNATURE).write_bytes(said)
    with pytest.raises(UserError, match=why):
        shelf.add(folder, where=Environment.PROD)
    for refused in (
        lambda: adapters.signatures.vouched(said),
        lambda: adapters.signatures.signer(key),
        lambda: adapters.signatures.carried(both[0], [told]),
    ):
        with pytest.raises(bundle.Unreadable, match=f"{key[:16]}, which was revoked here"):
            refused()
    ours = adapters.signatures.sign(both[0])
    found = adapters.signatures.carried(both[0], [told, (ours.key, ours.bundle, ours.manifest)])
    assert [each.key for each in found] == [adapters.signatures.current]


def test_a_key_that_signs_or_is_of_the_settings_or_of_nobody_is_not_revoked(
    shelf: Shelf, tmp_path: Path
) -> None:
    signatures = shelf.signatures(shelf.public)
    (foreign,) = (id for own, id, _ in signatures.keys if own is None)
    before = signatures.current
    for key, why in (
        (before, "the one that signs: have another made first"),
        (foreign, "is publisher.pem of the settings: take it out"),
        ("ab" * 8, "There is no key 'abababababababab'"),
        (before[:7], "There is no key"),
    ):
        with pytest.raises(UserError, match=why):
            signatures.revoke(key, 0)
    signatures.rotate()
    with pytest.raises(UserError, match="this one lies ahead"):
        signatures.revoke(before, 10**17)
    assert not any(each.is_revoked for _, _, each in signatures.keys)


def test_a_home_whose_key_another_gateway_revoked_signs_with_a_new_one(
    shelf: Shelf, tmp_path: Path
) -> None:
    adapters, first = shelf.add(peft_folder(tmp_path / "first"), job="job_1")
    before = adapters.signatures.current
    shelf.store.revoke_signing_key(before, 0)
    adapters.sign(first)
    assert adapters.signatures.current != before
    assert adapters.verified(first).holds


def test_a_home_whose_key_is_lost_gets_another_and_knows_what_the_first_signed(
    shelf: Shelf, tmp_path: Path
) -> None:
    adapters, adapter = shelf.add(peft_folder(tmp_path / "first"), job="job_1")
    (shelf.home / "signing").unlink()
    again = shelf.signatures()
    assert again.current != adapters.signatures.current
    assert again.why_not(adapter, again.of(adapter)) is None
    (shelf.home / "signing").write_text("no key")
    with pytest.raises(UserError, match="restore it from a backup"):
        shelf.signatures()


def test_a_trusted_key_that_cannot_be_read_stops_the_start(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "rsa.pem").write_text("-----BEGIN PUBLIC KEY-----\n")
    for each in (tmp_path / "rsa.pem", tmp_path / "absent.pem"):
        with pytest.raises(UserError, match=r"supply.trusted_keys: .* is no public key"):
            shelf.signatures(each)


def test_signatures_go_with_the_last_adapter_that_they_are_on(shelf: Shelf, tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "made")
    adapters, adapter = shelf.add(folder, job="job_1")
    shelf.add(folder, job="job_1", where=Environment.PROD)
    adapters.remove("ten_a", Environment.DEV, adapter.name)
    assert adapters.signatures.of(adapter)
    adapters.remove("ten_a", Environment.PROD, adapter.name)
    assert not adapters.signatures.of(adapter)
