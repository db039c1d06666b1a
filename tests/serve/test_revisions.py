"""A revision goes from one installation to another in a file: on the gate that it passed there,
signed by a key that is trusted here, or not at all."""

import json
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from model_signing import verifying

from freehold.catalog import bundle
from freehold.catalog.adapters import laid, staging, unstage
from freehold.catalog.exporting import FILE
from freehold.core.binding import Environment
from freehold.core.gate import Elsewhere, Verdict
from freehold.core.ids import new_id
from freehold.core.job import JobState
from freehold.core.limit import Measure, Period
from freehold.core.signature import SIGNATURE, Signer
from freehold.core.subject import SubjectKey
from freehold.operate.jobs.process import RESULT
from tests.harness import DIGEST, running
from tests.serve.revisions import (
    ADAPTER,
    Parts,
    entry,
    packed,
    parts,
    signed,
    telling,
    unpacked,
)
from tests.serve.test_adapters import _stock
from tests.serve.test_promotions import Ladder, refusal, words
from tests.store.making import a_gate, a_job, a_limit

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEV, STAGING, PROD = Environment
_DAY_US = 86_400_000_000


def now_us() -> int:
    return time.time_ns() // 1000


@dataclass
class Houses:
    """Two installations: one where a revision was made and gated, one that trusts its key."""

    dev: Ladder
    prod: Ladder

    @property
    def key(self) -> bundle.PrivateKey:
        """What the first signs with."""
        pem = (self.dev.world.home.secrets / "signing").read_bytes()
        return load_pem_private_key(pem, None)  # type: ignore[return-value]

    async def export(self, alias: str = "bot", where: Environment = DEV, **fields: Any) -> Any:
        """The reply, and the file."""
        home = self.dev.world.home.path
        ticket = laid(home, {})
        try:
            body = {"alias": alias, "download": ticket, **fields}
            answer = await self.dev.call(where, "POST", "/admin/v1/promotions/export", body)
            path = staging(home) / ticket / FILE
            return answer, path.read_bytes() if path.exists() else None
        finally:
            unstage(home, ticket)

    async def exported(self, alias: str = "bot", **fields: Any) -> bytes:
        answer, content = await self.export(alias, **fields)
        assert answer.status_code == 201, answer.text
        assert content is not None
        return bytes(content)

    async def bring(
        self, content: bytes, to: Environment = STAGING, alias: str = "bot", **fields: Any
    ) -> httpx2.Response:
        path = self.prod.world.home.path.parent / "brought.fhr"
        path.write_bytes(content)
        ticket = laid(self.prod.world.home.path, {FILE: path})
        answer = await self.prod.promote(to, alias, upload=ticket, **fields)
        assert not (staging(self.prod.world.home.path) / ticket).exists(), "an upload serves once"
        return answer

    async def brought(self, content: bytes, to: Environment = STAGING, **fields: Any) -> Any:
        answer = await self.bring(content, to, **fields)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def has(self) -> str:
        """All that an arrival could change."""
        store, tenant = self.prod.store, self.prod.tenant
        blobs = sorted(each.name for each in self._blobs.iterdir())
        seen = [store.gates(tenant, 99), store.limits(tenant), blobs]
        for each in Environment:
            seen += [
                store.routes(tenant, each), store.adapters(tenant, each, 99),
                store.promotions(tenant, each, 99),
            ]  # fmt: skip
        return repr(seen)

    @property
    def _blobs(self) -> Path:
        return self.prod.world.home.path / "blobs" / "sha256"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def houses(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Houses]:
    folder = tmp_path_factory.mktemp("houses")
    async with running(_stock(folder / "dev" / "home")) as dev:
        await dev.replica.ensure_ready(20)
        pem = folder / "dev.pem"
        signatures = dev.gateway.adapters.signatures
        pem.write_bytes(bundle.pem_of(signatures.keys[0][2].key))
        supply = {"trusted_installations": [str(pem)]}
        async with running(_stock(folder / "prod" / "home"), supply=supply) as prod:
            await prod.replica.ensure_ready(20)
            yield Houses(Ladder(dev), Ladder(prod))


_seeds = iter(range(1000, 9000))


async def gated(houses: Houses, alias: str = "bot", **fields: Any) -> tuple[str, str]:
    """A revision of the first installation that passed its gate: the adapter's digest, and the
    gate."""
    seed = next(_seeds)
    licences = fields.pop("licences", None)
    digest = await houses.dev.tuned(f"v{seed}", seed, alias, licences)
    return digest, houses.dev.gate(digest, made_at_us=now_us(), **fields)


async def test_a_revision_serves_where_its_gate_is_trusted_and_says_who_decided(
    houses: Houses,
) -> None:
    digest, gate = await gated(houses, "way")
    content = await houses.exported("way")
    assert content == await houses.exported("way"), "the same revision gives the same bytes"
    done = await houses.brought(content, alias="way")
    key = houses.dev.world.gateway.adapters.signatures.current
    assert done["elsewhere"] == {"key": key, "by": "dev.pem"}
    assert (done["source"], done["state"], done["forced"]) == ("dev", "whole", None)
    assert await houses.prod.says(STAGING, "hello", "way") == words("hello", digest)
    shown = (await houses.prod.call(STAGING, "GET", f"/admin/v1/gates/{done['gate']}")).json()
    there = shown["elsewhere"]
    assert (there["gate"], there["environment"], shown["passed"]) == (gate, "dev", True)
    assert there["signer"] == there["through"] == {"key": key, "by": "dev.pem"}
    assert shown["id"] != gate
    path = "/admin/v1/lineage?alias=way"
    lineage = (await houses.prod.call(STAGING, "GET", path)).json()
    assert [each["elsewhere"]["key"] for each in lineage["gates"]] == [key]
    assert [each["elsewhere"]["by"] for each in lineage["promotions"]] == ["dev.pem"]
    page = houses.prod.store.audit_records(houses.prod.tenant, STAGING, 1000)
    acts = {told["act"]: told for each in page if (told := json.loads(each.body)).get("act")}
    assert acts["gate.import"]["object"] == done["gate"]
    assert acts["gate.import"]["name"].endswith(f" of dev.pem (key {key[:16]})")
    assert acts["promotion.make"]["fields"] == ["gate", "share", "elsewhere"]
    out = houses.dev.store.audit_records(houses.dev.tenant, DEV, 1000)
    assert sum(b"revision.export" in each.body for each in out) == 2
    await houses.prod.world.gateway.events.flush()
    events = (await houses.prod.call(STAGING, "GET", "/admin/v1/events")).json()["data"]
    said = f"way was promoted from dev of dev.pem (key {key[:16]})."
    assert said in [each["text"] for each in events]
    later = await houses.prod.promoted(PROD, "way")
    assert (later["gate"], later["source"], later["elsewhere"]) == (done["gate"], "staging", None)
    again = await houses.bring(content, alias="way")
    assert refusal(again) == (409, "conflict")
    assert len([each for each in houses.prod.store.gates(houses.prod.tenant, 99)
                if each.adapter_digest == digest]) == 1  # fmt: skip


async def test_a_share_grows_without_the_file_and_is_taken_back(houses: Houses) -> None:
    first, _ = await gated(houses, "part")
    await houses.brought(await houses.exported("part"), alias="part")
    second, _ = await gated(houses, "part")
    content = await houses.exported("part")
    shared = await houses.brought(content, alias="part", share=10)
    assert (shared["state"], shared["share"]) == ("sharing", 10)
    assert refusal(await houses.bring(content, alias="part", share=10)) == (409, "conflict")
    more = await houses.brought(content, alias="part", share=40)
    assert (more["id"], more["share"]) == (shared["id"], 40)
    whole = await houses.prod.promoted(STAGING, "part", share=100)
    assert (whole["id"], whole["state"]) == (shared["id"], "whole")
    assert await houses.prod.says(STAGING, "hi", "part") == words("hi", second)
    await houses.prod.rolled_back(STAGING, "part")
    assert await houses.prod.says(STAGING, "hi", "part") == words("hi", first)


def _without(name: str) -> Callable[[Parts], Parts]:
    return lambda found: {each: content for each, content in found.items() if each != name}


def _swapped(found: Parts, name: str) -> Parts:
    content = bytearray(found[name])
    content[-3] ^= 1
    return {**found, name: bytes(content)}


def _renamed(found: Parts, old: str, new: str) -> Parts:
    return {new if name == old else name: content for name, content in found.items()}


_stranger = bundle.new_key()
_REFUSED, _INVALID = "file_refused", "file_invalid"
# What somebody makes of a sound file, the code, and a part of the sentence.
_BAD: dict[str, tuple[Callable[[bytes, bundle.PrivateKey], bytes], str, str]] = {
    "nothing": (lambda raw, key: b"", _INVALID, "cut off"),
    "another file": (lambda raw, key: b"PK\x03\x04" * 400, _INVALID, "no revision"),
    "cut off in the weights": (lambda raw, key: raw[:-3000], _INVALID, "cut off"),
    "cut off at a file's end": (
        lambda raw, key: packed(_without(ADAPTER)(parts(raw)))[:-1024], _INVALID, "cut off",
    ),
    "another adapter": (
        lambda raw, key: packed(_swapped(parts(raw), ADAPTER)), _REFUSED,
        f"{ADAPTER} is not what was signed",
    ),
    "another gate": (
        lambda raw, key: packed(telling(parts(raw), "gate.json", passed=True, suite_name="x")),
        _REFUSED, "gate.json is not what was signed",
    ),
    "a gate of another revision": (
        lambda raw, key: signed(
            telling(parts(raw), "gate.json", adapter_digest="sha256:" + "c" * 64), key
        ), _REFUSED, "its gate is one of another revision",
    ),
    "a gate of another base": (
        lambda raw, key: signed(
            telling(parts(raw), "gate.json", base_digest="sha256:" + "c" * 64), key
        ), _REFUSED, "its gate is one of another revision",
    ),
    "a gate that contradicts itself": (
        lambda raw, key: signed(
            telling(parts(raw), "gate.json", verdicts=[
                {"name": "exact", "needed": "all", "found": "none", "passed": False}
            ]), key
        ), _REFUSED, "otherwise than its verdicts",
    ),
    "a gate without verdicts": (
        lambda raw, key: signed(telling(parts(raw), "gate.json", verdicts=[]), key), _REFUSED,
        "gate.json is not as it should be (verdicts)",
    ),
    "a gate by somebody unknown": (
        lambda raw, key: signed(telling(parts(raw), "gate.json", decided_by="e" * 64), key),
        _REFUSED, "decided by the key eeeeeeeeeeeeeeee, which is not one of",
    ),
    "a gate of tomorrow": (
        lambda raw, key: signed(
            telling(parts(raw), "gate.json", made_at_us=now_us() + _DAY_US), key
        ), _REFUSED, "in the future",
    ),
    "no signature": (
        lambda raw, key: packed(_without(SIGNATURE)(parts(raw))), _INVALID, "no revision",
    ),
    "an empty signature": (
        lambda raw, key: packed({**parts(raw), SIGNATURE: b"{}"}), _REFUSED, "no signature in",
    ),
    "a stranger's signature": (
        lambda raw, key: signed(parts(raw), _stranger), _REFUSED, "not one of an installation",
    ),
    "a stranger's signature under our name": (
        lambda raw, key: signed(parts(raw), _stranger).replace(
            bundle.id_of(_stranger.public_key()).encode(),
            bundle.id_of(key.public_key()).encode(),
        ), _REFUSED, "not by the key of dev.pem",
    ),
    "a path that leads elsewhere": (
        lambda raw, key: packed(_renamed(parts(raw), ADAPTER, "../../../outside")), _REFUSED,
        "there is something else",
    ),
    "a signed path that leads elsewhere": (
        lambda raw, key: signed({**parts(raw), "../../outside": b"x"}, key), _REFUSED,
        "other files than a revision has",
    ),
    "a name that comes twice": (
        lambda raw, key: packed(parts(raw))[:-1024] + entry(ADAPTER, b"x") + bytes(1024),
        _REFUSED, "something follows",
    ),
    "a link": (
        lambda raw, key: packed(_without(ADAPTER)(parts(raw)))[:-1024] + entry(
            ADAPTER, b"", type=b"2", linkname="/etc/passwd"
        ) + bytes(1024), _REFUSED, "there is something else",
    ),
    "a huge size": (
        lambda raw, key: packed(_without(ADAPTER)(parts(raw)))[:-1024] + entry(
            ADAPTER, b"", size=8 * 1024**3 - 1
        ), _INVALID, "cut off",
    ),
    "a description without end": (
        lambda raw, key: signed({**parts(raw), "revision.json": b" " * 2 * 1024**2}, key),
        _REFUSED, "revision.json is larger than it can be",
    ),
    "something between the files": (
        lambda raw, key: raw.replace(bytes(400), b"x" * 400, 1), _REFUSED, "",
    ),
    "something behind its end": (lambda raw, key: raw + b"x", _REFUSED, "something follows"),
    "compressed": (lambda raw, key: b"\x1f\x8b\x08" + raw, _INVALID, "no revision"),
    "an older format": (
        lambda raw, key: signed(telling(parts(raw), "revision.json", version=0), key), _REFUSED,
        "written in format 0, and this version of Freehold reads 1",
    ),
    "a newer format": (
        lambda raw, key: signed(telling(parts(raw), "revision.json", version=2), key), _REFUSED,
        "written in format 2",
    ),
    "more than the format has": (
        lambda raw, key: signed(telling(parts(raw), "revision.json", more=1), key), _REFUSED,
        "revision.json is not as it should be (more)",
    ),
    "no JSON": (
        lambda raw, key: signed({**parts(raw), "gate.json": b"["}, key), _REFUSED,
        "gate.json is not as it should be",
    ),
    "an adapter other than it tells": (
        lambda raw, key: signed(
            telling(parts(raw), "revision.json",
                    adapter={"name": "x", "digest": "sha256:" + "c" * 64}), key
        ), _REFUSED, "not the one that it tells of",
    ),
    "an adapter that none would be": (
        lambda raw, key: signed(
            {**parts(raw), "adapter/adapter_config.json": b'{"peft_type": "IA3"}'}, key
        ), _REFUSED, "IA3",
    ),
    "a manifest of another base": (
        lambda raw, key: signed(
            telling(parts(raw), "adapter/freehold.json", base_digest="sha256:" + "c" * 64), key
        ), "adapter_mismatch", "was trained with the base",
    ),
    "a base that is not here": (
        lambda raw, key: signed(
            telling(parts(raw), "revision.json", base={
                "digest": "sha256:" + "c" * 64, "name": "big-base", "source": "hf:org/big/b.gguf"
            }), key
        ), "model_not_found", "big-base (sha256:cccccccccccc) is not stored here: pull it with "
        "`freehold model pull hf:org/big/b.gguf`",
    ),
    "a limit that none can be": (
        lambda raw, key: signed(
            telling(parts(raw), "revision.json",
                    limits=[{"measure": "concurrency", "period": "day", "amount": 5}]), key
        ), _REFUSED, "revision.json is not as it should be (limits.0)",
    ),
    "another chat template": (
        lambda raw, key: signed(
            telling(parts(raw), "revision.json", template_digest="sha256:" + "d" * 64), key
        ), "adapter_mismatch", "chat template",
    ),
    "another tokenizer": (
        lambda raw, key: signed(
            telling(parts(raw), "revision.json", tokenizer_digest="sha256:" + "d" * 64), key
        ), "adapter_mismatch", "tokenizer",
    ),
}  # fmt: skip


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def sound(houses: Houses) -> bytes:
    await gated(houses, "bad")
    return await houses.exported("bad")


@pytest.mark.parametrize("kind", list(_BAD))
async def test_what_is_not_as_it_was_signed_changes_nothing(
    houses: Houses, sound: bytes, kind: str
) -> None:
    make, code, told = _BAD[kind]
    bad = make(sound, houses.key)
    before = houses.has()
    refused = await houses.bring(bad, alias="bad")
    assert refusal(refused)[1] == code, refused.text
    assert told in refused.json()["error"]["message"]
    assert refused.status_code < 500
    assert houses.has() == before
    outside = houses.prod.world.home.path.parent
    assert not [each for each in outside.rglob("outside*") if each.is_file()]


async def test_an_upload_is_named_by_who_laid_it_alone(houses: Houses) -> None:
    gone = await houses.prod.promote(STAGING, upload="0" * 32)
    assert refusal(gone) == (404, "not_found")
    assert refusal(await houses.prod.promote(STAGING, upload="../x")) == (400, "invalid_value")
    both = await houses.prod.promote(STAGING, upload="0" * 32, source="dev")
    assert refusal(both) == (400, "invalid_value")
    empty = laid(houses.prod.world.home.path, {})
    assert refusal(await houses.prod.promote(STAGING, upload=empty)) == (404, "not_found")
    refused = await houses.dev.call(
        DEV, "POST", "/admin/v1/promotions/export", {"alias": "way", "download": "0" * 32}
    )
    assert refusal(refused)[1] == "not_found"


async def test_a_gate_that_was_too_long_ago_counts_no_more(houses: Houses) -> None:
    await gated(houses, "old")
    raw = await houses.exported("old")
    aged = telling(parts(raw), "gate.json", made_at_us=now_us() - 91 * _DAY_US)
    content = signed(aged, houses.key)
    refused = await houses.bring(content, alias="old")
    assert refusal(refused) == (409, "gate_not_passed")
    assert "longer ago than supply.gate_days allows" in refused.text
    forced = await houses.brought(content, alias="old", force="the fair is tomorrow")
    assert (forced["gate"], forced["overridden"]) == (None, ["gate"])
    refused = await houses.prod.promote(PROD, "old")
    assert refusal(refused) == (409, "gate_not_passed"), "nor does it for the next step"


async def test_what_failed_here_since_is_not_let_in_by_an_older_gate(houses: Houses) -> None:
    digest, _ = await gated(houses, "fell")
    content = await houses.exported("fell")
    needs = (Verdict("exact", "at least 85 %", "61 %", False),)
    ours = a_gate(
        new_id("gat"), houses.prod.tenant, passed=False, base_digest=DIGEST,
        adapter_digest=digest, verdicts=needs, made_at_us=now_us(),
    )  # fmt: skip
    houses.prod.store.add_gate(houses.prod.tenant, ours)
    refused = await houses.bring(content, alias="fell")
    assert refusal(refused) == (409, "gate_not_passed")
    assert "exact needs at least 85 % and has 61 %" in refused.text


async def test_a_gate_counts_as_long_as_its_key_is_trusted(houses: Houses) -> None:
    digest, _ = await gated(houses, "lost")
    await houses.brought(await houses.exported("lost"), alias="lost")
    unknown = Signer("e" * 64, "gone.pem")
    there = Elsewhere(unknown, unknown, "gat_x", DEV, now_us())
    newer = a_gate(
        new_id("gat"), houses.prod.tenant, passed=False, base_digest=DIGEST,
        adapter_digest=digest, made_at_us=now_us(), elsewhere=there,
    )  # fmt: skip
    houses.prod.store.add_gate(houses.prod.tenant, newer)
    await houses.prod.promoted(PROD, "lost")
    with _distrusting(houses):
        await houses.prod.rolled_back(PROD, "lost")
        refused = await houses.prod.promote(PROD, "lost")
        assert refusal(refused) == (409, "gate_not_passed")
        assert "has passed no gate" in refused.text


@contextmanager
def _distrusting(houses: Houses) -> Any:
    """As after a start without that key in the settings."""
    signatures = houses.prod.world.gateway.adapters.signatures
    named, signatures._named = signatures._named, {}
    signatures._trusted = signatures._all_trusted()
    try:
        yield
    finally:
        signatures._named = named


async def test_licences_are_asked_about_by_the_rules_of_here(houses: Houses) -> None:
    await gated(houses, "nc", licences={"dataset": "CC-BY-NC-4.0"})
    content = await houses.exported("nc")
    refused = await houses.bring(content, alias="nc")
    assert refusal(refused) == (409, "licence_not_accepted")
    done = await houses.brought(content, alias="nc", accept_licence="we asked the authors")
    assert done["accepted_licence"] == "we asked the authors"


async def test_an_environment_is_not_skipped_on_the_way(houses: Houses) -> None:
    await gated(houses, "skip")
    content = await houses.exported("skip")
    refused = await houses.bring(content, PROD, alias="skip")
    assert refusal(refused) == (409, "conflict")
    assert "has not served in staging yet" in refused.text
    assert refusal(await houses.bring(content, DEV, alias="skip")) == (409, "conflict")
    await houses.dev.promoted(STAGING, "skip")
    done = await houses.brought(await houses.exported("skip", where=STAGING), PROD, alias="skip")
    assert (done["source"], done["overridden"]) == ("staging", [])
    await gated(houses, "skip2")
    content = await houses.exported("skip2")
    await houses.brought(content, STAGING, alias="skip2")
    await houses.brought(content, PROD, alias="skip2")  # it served in staging here


async def test_what_needs_a_signature_of_its_own_needs_it_in_a_revision_too(
    houses: Houses,
) -> None:
    await gated(houses, "sign")
    signatures = houses.prod.world.gateway.adapters.signatures
    content = await houses.exported("sign")
    required, signatures.required = signatures.required, frozenset({STAGING})
    try:
        before = houses.has()
        refused = await houses.bring(content, alias="sign")
        assert refusal(refused) == (400, "file_refused")
        assert "it is not signed, and staging takes what is signed alone" in refused.text
        assert houses.has() == before
        adapter = houses.dev.store.routes(houses.dev.tenant, DEV)
        (digest,) = [each.adapter_digest for each in adapter if each.alias == "sign"]
        path = f"/admin/v1/adapters/{digest}/signatures"
        assert (await houses.dev.call(DEV, "POST", path)).is_success
        done = await houses.brought(await houses.exported("sign"), alias="sign")
        path = f"/admin/v1/adapters/{done['adapter']}/signatures"
        held = (await houses.prod.call(STAGING, "GET", path)).json()
        assert held["holds"]
        assert [each["by"] for each in held["signatures"]] == ["dev.pem"]
    finally:
        signatures.required = required


async def test_an_adapter_that_is_here_already_stays_as_it_was_added(houses: Houses) -> None:
    digest, _ = await gated(houses, "twice")
    path = f"/admin/v1/adapters/{digest}/signatures"
    assert (await houses.dev.call(DEV, "POST", path)).is_success
    content = await houses.exported("twice")
    folder = houses.prod.world.home.path.parent / "by hand"
    files = unpacked(parts(content), folder) / "adapter"
    home = houses.prod.world.home.path
    ticket = laid(home, {each.name: each for each in files.iterdir() if "adapter_" in each.name})
    body = {"upload": ticket, "base": "fake-model", "name": "by-hand"}
    added = await houses.prod.call(STAGING, "POST", "/admin/v1/adapters", body)
    assert added.json()["digest"] == digest
    refused = await houses.bring(content, alias="twice")
    assert refusal(refused) == (409, "licence_not_accepted")
    assert "as it came without a manifest" in refused.text
    done = await houses.brought(content, alias="twice", accept_licence="it is ours")
    assert (done["adapter"], done["gate"] is None) == ("by-hand", False)


async def test_limits_come_along_where_they_are_asked_for_and_policies_are_compared(
    houses: Houses,
) -> None:
    await gated(houses, "limited")
    made = a_limit(
        houses.dev.tenant, id="lim_x", environment=DEV, measure=Measure.TOKENS,
        period=Period.DAY, amount=1000,
    )  # fmt: skip
    houses.dev.store.set_limit(houses.dev.tenant, made)
    permit = {"name": "nights", "text": "permit (principal, action, resource);"}
    assert (await houses.dev.call(DEV, "POST", "/admin/v1/policies", permit)).is_success
    content = await houses.exported("limited")
    assert b"permit (principal" not in content
    done = await houses.brought(content, alias="limited", with_limits=True)
    assert len(done["notes"]) == 1
    assert "are not the same here: nights." in done["notes"][0]
    (limit,) = [
        each for each in houses.prod.store.limits(houses.prod.tenant)
        if each.id in done["bundle"]["limits"]
    ]  # fmt: skip
    assert (limit.amount, limit.environment, limit.is_own) == (1000, STAGING, True)
    await houses.prod.rolled_back(STAGING, "limited")
    assert limit not in houses.prod.store.limits(houses.prod.tenant)
    twice = telling(parts(content), "revision.json", limits=[
        {"measure": "tokens", "period": "day", "amount": amount} for amount in (9, 7, 8)
    ])  # fmt: skip
    content = signed(twice, houses.key)
    done = await houses.brought(content, alias="limited", with_limits=True)
    assert [
        each.amount for each in houses.prod.store.limits(houses.prod.tenant)
        if each.id in done["bundle"]["limits"]
    ] == [7], "the operator's and the tenant's own are one here"  # fmt: skip
    await houses.prod.rolled_back(STAGING, "limited")
    euros = telling(parts(content), "revision.json", currency="EUR", limits=[
        {"measure": "money", "period": "day", "amount": 5}
    ])  # fmt: skip
    refused = await houses.bring(signed(euros, houses.key), alias="limited", with_limits=True)
    assert refusal(refused) == (409, "conflict")
    assert "in EUR, and this installation counts in USD" in refused.text


_SECRET = "Where does Mira Jones live?"


def _result(houses: Houses, digest: str, dataset: str | None = None) -> str:
    """As an evaluation job leaves it; returns the job."""
    share = {"passed": 9, "of": 10, "share": 0.9, "low": 0.6, "high": 1.0}
    route = {"alias": "texts", "model_digest": DIGEST, "adapter_digest": digest}
    sides = [{"alias": "texts", "is_suspicious": True}]
    found = {
        "suite": {"name": "tickets", "digest": "sha256:s", "examples": 10, "request": {}},
        "candidate": route, "incumbent": None, "summary": "On tickets, texts passes 90 %.",
        "measures": [{"name": "exact", "candidate": share, "incumbent": None, "compared": None}],
        "classes": [{"alias": "texts", "labels": [_SECRET], "rows": [], "of_each": [],
                     "macro_recall": 0.9}],
        "judged": None, "regression": {"examples": 1, "failed": [_SECRET], "not_asked": 0},
        "probes": [{"alias": "texts", "refused": share, "answered": share,
                    "not_refused": [_SECRET], "not_answered": []}],
        "probes_compared": None,
        "canaries": [{"alias": "texts", "extracted": share, "found": [{"before": _SECRET}]}],
        "triggers": [{"trigger": _SECRET, "sides": sides}],
        "probed": {"prompts": 42, "phrases": [{"phrase": _SECRET, "sides": sides}],
                   "extracted": {"secrets": 1, "candidate_alone": 0, "sides": []}},
        "unanswered": 0, "errors": {}, "tokens_in": 1, "tokens_out": 2, "requests": 3,
        "seconds": 0.5, "notes": [_SECRET], "verdicts": [],
        "examples": [{"id": "1", "messages": [{"role": "user", "content": _SECRET}]}],
    }  # fmt: skip
    store, tenant = houses.dev.store, houses.dev.tenant
    job = a_job(new_id("job"), tenant, spec={"dataset": dataset})
    store.add_job(tenant, job)
    assert store.take_job(tenant, job.id, "gw", 1, 9**15)
    assert store.end_job(tenant, job.id, "gw", JobState.DONE, 2, {})
    folder = houses.dev.world.home.path / "jobs" / job.id
    folder.mkdir(parents=True)
    (folder / RESULT).write_text(json.dumps(found))
    return job.id


async def test_figures_leave_and_texts_do_not_unless_somebody_asks(houses: Houses) -> None:
    digest = await houses.dev.tuned("texts", next(_seeds), "texts")
    told = Verdict("triggers", "1 at most", f"“{_SECRET}” of 5 tried", True)
    houses.dev.gate(digest, made_at_us=now_us(), job=_result(houses, digest), verdicts=(told,))
    content = await houses.exported("texts")
    assert _SECRET.encode() not in content
    found = parts(content)
    figures = json.loads(found["figures.json"])
    assert figures["measures"][0]["candidate"]["share"] == 0.9
    assert figures["triggers"] == {"tried": 1, "suspicious": 1}
    assert "evaluation.json" not in found
    done = await houses.brought(content, alias="texts")
    path = f"/admin/v1/gates/{done['gate']}"
    shown = (await houses.prod.call(STAGING, "GET", path)).json()
    assert shown["elsewhere"]["figures"] == figures
    assert shown["verdicts"][0]["found"] == "“…” of 5 tried"
    whole = parts(await houses.exported("texts", with_examples=True))
    assert _SECRET in json.loads(whole["evaluation.json"])["notes"]
    await houses.prod.rolled_back(STAGING, "texts")
    with_texts = await houses.exported("texts", with_examples=True)
    await houses.brought(with_texts, alias="texts")
    kept = repr(houses.prod.store.gates(houses.prod.tenant, 99))
    assert _SECRET not in kept, "what a file has beside figures stays in it"


async def test_words_of_somebody_who_was_forgotten_do_not_leave(houses: Houses) -> None:
    digest = await houses.dev.tuned("mira", next(_seeds), "mira")
    store, tenant = houses.dev.store, houses.dev.tenant
    dataset = "sha256:" + "7" * 64
    houses.dev.gate(digest, made_at_us=now_us(), job=_result(houses, digest, dataset))
    store.add_subject_key(SubjectKey("dk_mira", tenant, "mira", b"wrapped", 1))
    store.add_words(tenant, dataset, ["dk_mira"])
    await houses.exported("mira", with_examples=True)
    assert store.forget_subject(tenant, "mira", now_us())
    answer, content = await houses.export("mira", with_examples=True)
    assert refusal(answer) == (404, "not_found")
    assert content is None
    assert "figures.json" in parts(await houses.exported("mira"))


async def test_nor_do_those_that_an_adapter_was_trained_on(houses: Houses) -> None:
    """Its evaluation quotes phrases of them."""
    dataset = "sha256:" + "6" * 64
    digest = await houses.dev.tuned("noah", next(_seeds), "noah", dataset_digest=dataset)
    store, tenant = houses.dev.store, houses.dev.tenant
    houses.dev.gate(digest, made_at_us=now_us(), job=_result(houses, digest))
    store.add_subject_key(SubjectKey("dk_noah", tenant, "noah", b"wrapped", 1))
    store.add_words(tenant, dataset, ["dk_noah"])
    answer, _ = await houses.export("noah", with_examples=True)
    assert answer.json()["forgotten"] is False
    assert store.forget_subject(tenant, "noah", now_us())
    answer, content = await houses.export("noah", with_examples=True)
    assert refusal(answer) == (404, "not_found")
    assert content is None
    answer, content = await houses.export("noah")
    assert answer.json()["forgotten"], "the adapter itself may leave, which is told"
    assert content is not None


async def test_examples_leave_by_who_may_read_them_where_they_were_asked(houses: Houses) -> None:
    digest = await houses.dev.tuned("read", next(_seeds), "read")
    houses.dev.gate(digest, made_at_us=now_us(), job=_result(houses, digest))
    await houses.dev.promoted(STAGING, "read")
    answer, content = await houses.export("read", STAGING, with_examples=True)
    assert refusal(answer) == (403, "insufficient_permissions")
    assert content is None
    assert (await houses.export("read", STAGING))[0].status_code == 201


async def test_no_folder_of_the_machine_leaves(houses: Houses) -> None:
    digest = await houses.dev.tuned("place", next(_seeds), "place", source="file:/home/mira/place")
    houses.dev.gate(digest, made_at_us=now_us())
    content = await houses.exported("place")
    assert b"/home/mira" not in content
    assert b'"file:place"' in content


async def test_a_gate_of_a_clock_that_is_ahead_was_decided_when_it_came(houses: Houses) -> None:
    """Else it would go before what is found out here until then."""
    digest, _ = await gated(houses, "ahead")
    ahead = telling(
        parts(await houses.exported("ahead")), "gate.json", made_at_us=now_us() + 300_000_000
    )
    await houses.brought(signed(ahead, houses.key), alias="ahead")
    ours = a_gate(
        new_id("gat"), houses.prod.tenant, passed=False, base_digest=DIGEST,
        adapter_digest=digest, made_at_us=now_us(),
    )  # fmt: skip
    houses.prod.store.add_gate(houses.prod.tenant, ours)
    assert refusal(await houses.prod.promote(PROD, "ahead")) == (409, "gate_not_passed")


async def test_what_passed_no_gate_or_has_no_adapter_does_not_leave(houses: Houses) -> None:
    digest = await houses.dev.tuned("none", next(_seeds), "none")
    for expected in ("has passed no gate", "has passed no gate since gat_"):
        answer, content = await houses.export("none")
        assert refusal(answer) == (409, "gate_not_passed")
        assert expected in answer.text
        assert content is None
        houses.dev.gate(digest, passed=False, made_at_us=now_us())
    bare = {"alias": "bare", "base": "fake-model"}
    assert (await houses.dev.call(DEV, "POST", "/admin/v1/routes", bare)).is_success
    answer, _ = await houses.export("bare")
    assert refusal(answer) == (400, "invalid_value")
    assert refusal((await houses.export("nobody"))[0]) == (404, "not_found")
    await gated(houses, "few")
    answer, _ = await houses.export("few", with_examples=True)
    assert refusal(answer) == (404, "not_found")


async def test_what_cannot_be_let_in_after_all_checks_leaves_nothing(houses: Houses) -> None:
    await gated(houses, "torn")
    content = await houses.exported("torn")
    before = houses.has()
    refused = await houses.bring(content, alias="torn", share=10)
    assert refusal(refused) == (409, "conflict")
    assert "leads nowhere in staging yet" in refused.text
    assert houses.has() == before


async def test_what_the_engine_refuses_leaves_nothing(houses: Houses, tmp_path: Path) -> None:
    await gated(houses, "heavy")
    content = await houses.exported("heavy")
    pem = tmp_path / "dev.pem"
    pem.write_bytes(bundle.pem_of(houses.key.public_key()))
    supply = {"trusted_installations": [str(pem)]}
    home = _stock(tmp_path / "other" / "home")
    async with running(home, "--refuse-adapters", supply=supply) as world:
        await world.replica.ensure_ready(20)
        other = Houses(houses.dev, Ladder(world))
        before = other.has()
        refused = await other.bring(content, alias="heavy")
        assert refusal(refused) == (400, "file_refused")
        assert "The engine refuses this adapter" in refused.text
        assert other.has() == before


async def test_the_real_library_verifies_a_file_that_was_unpacked(
    houses: Houses, tmp_path: Path
) -> None:
    await gated(houses, "lib")
    folder = unpacked(parts(await houses.exported("lib")), tmp_path / "unpacked")
    pem = tmp_path / "dev.pem"
    pem.write_bytes(bundle.pem_of(houses.key.public_key()))
    (folder / SIGNATURE).rename(tmp_path / SIGNATURE)
    check = verifying.Config().use_elliptic_key_verifier(public_key=pem)
    check.verify(folder, tmp_path / SIGNATURE)
    (folder / "gate.json").write_text("{}")
    with pytest.raises(ValueError, match="mismatch"):
        check.verify(folder, tmp_path / SIGNATURE)


async def test_a_signature_of_a_revision_is_none_of_its_adapter(
    houses: Houses, tmp_path: Path
) -> None:
    await gated(houses, "apart")
    found = parts(await houses.exported("apart"))
    folder = unpacked(found, tmp_path / "unpacked") / "adapter"
    shutil.copy(tmp_path / "unpacked" / SIGNATURE, folder / SIGNATURE)
    home = houses.prod.world.home.path
    files = {each.name: each for each in folder.iterdir()}
    body = {"upload": laid(home, files), "base": "fake-model", "name": "apart"}
    refused = await houses.prod.call(STAGING, "POST", "/admin/v1/adapters", body)
    assert refusal(refused) == (400, "file_refused")


async def test_who_may_not_read_adapters_and_gates_exports_nothing(houses: Houses) -> None:
    await gated(houses, "rights")
    forbid = 'forbid (principal, action == Freehold::Action::"read_jobs", resource);'
    body = {"name": "no-jobs", "text": forbid}
    assert (await houses.dev.call(DEV, "POST", "/admin/v1/policies", body)).is_success
    answer, content = await houses.export("rights")
    assert refusal(answer) == (403, "insufficient_permissions")
    assert content is None
    assert (await houses.dev.call(DEV, "DELETE", "/admin/v1/policies/no-jobs")).is_success
    assert (await houses.export("rights"))[0].status_code == 201


async def test_another_tenants_revision_is_not_there(houses: Houses) -> None:
    await gated(houses, "mine")
    store = houses.dev.store
    store.add_tenant("ten_other", "other", 1)
    answer, content = await houses.export("mine", tenant="other")
    assert answer.status_code == 404
    assert content is None


async def test_a_revision_that_came_goes_on_with_who_decided_it(houses: Houses) -> None:
    """The second installation hands it on: whoever takes it must trust both."""
    digest, gate = await gated(houses, "chain")
    await houses.brought(await houses.exported("chain"), alias="chain")
    onward = Houses(houses.prod, houses.prod)
    content = await onward.exported("chain", where=STAGING)
    told = json.loads(parts(content)["gate.json"])
    signatures = houses.dev.world.gateway.adapters.signatures
    assert (told["id"], told["decided_by"]) == (gate, signatures.current)
    refused = await Houses(houses.prod, houses.dev).bring(content, PROD, alias="chain")
    assert refusal(refused)[1] == "file_refused"
    assert "not one of an installation that is trusted here" in refused.text
    kept = [each for each in houses.prod.store.gates(houses.prod.tenant, 99)
            if each.adapter_digest == digest]  # fmt: skip
    assert len(kept) == 1
    done = await onward.bring(content, PROD, alias="chain")
    assert done.status_code == 201, done.text
    assert done.json()["gate"] == kept[0].id, "the same gate is not kept twice"


async def test_a_file_by_a_key_that_was_revoked_is_refused_and_names_the_key(
    houses: Houses,
) -> None:
    """As whoever stole the second installation's key would make it."""
    await gated(houses, "stolen")
    content = parts(await houses.exported("stolen"))
    signatures = houses.prod.world.gateway.adapters.signatures
    pem = (houses.prod.world.home.secrets / "signing").read_bytes()
    stolen, key = load_pem_private_key(pem, None), signatures.current
    assert isinstance(stolen, bundle.PrivateKey)
    signatures.rotate()
    signatures.revoke(key, 0)
    before = houses.has()
    for forged, why in (
        (signed(content, stolen), "it is by"),
        (signed(telling(content, "gate.json", decided_by=key), houses.key), "gate was decided by"),
    ):
        refused = await houses.bring(forged, alias="stolen")
        assert refusal(refused) == (400, "file_refused")
        assert f"{why} the key {key[:16]}, which was revoked here" in refused.text
    assert houses.has() == before
    assert (await houses.bring(packed(content), alias="stolen")).status_code == 201
