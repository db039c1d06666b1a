"""Revisions come into staging and prod on evidence alone, whole or with a share, and go back."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from freehold.catalog.adapters import stage
from freehold.core.binding import Environment, Scope
from freehold.core.gate import Verdict
from freehold.core.limit import Limit, Measure, Period
from freehold.core.manifest import MANIFEST
from freehold.core.promotion import PromotionState
from freehold.core.usage import Outcome
from freehold.engines.fake import tokens_for
from freehold.operate.revisions.watching import Revisions
from freehold.secure.keys import KeyRequest
from freehold.store import ledger
from tests import upstream
from tests.catalog.making import peft_folder
from tests.harness import DIGEST, Running, asked, running
from tests.serve.test_adapters import _stock
from tests.serve.test_lineage import is_documented
from tests.store.making import a_gate, entries_of, reservation, settlement

DEV, STAGING, PROD = Environment
_OWN = {"base": "Apache-2.0", "dataset": "LicenseRef-own"}


class Ladder:
    """A tenant with a key of each environment, and adapters on their way up."""

    def __init__(self, world: Running) -> None:
        self.world = world
        self.store = world.gateway.store
        self.tenant = world.tenant_id
        self.keys = {each: self.mint(each) for each in Environment}

    def mint(self, environment: Environment, **narrowed: Any) -> str:
        wanted = KeyRequest(
            self.tenant, environment, f"of {environment}", frozenset(Scope), **narrowed
        )
        _, key = self.world.gateway.keyring.mint(wanted)
        assert key is not None
        return key.reveal()

    async def call(
        self, environment: Environment, method: str, path: str, body: Any = None, key: str = ""
    ) -> httpx2.Response:
        headers = {"authorization": f"Bearer {key or self.keys[environment]}"}
        async with httpx2.AsyncClient(
            base_url=self.world.url, headers=headers, timeout=60, verify=False
        ) as client:
            return await client.request(method, path, json=body)

    async def tuned(
        self,
        name: str,
        seed: int,
        alias: str = "bot",
        licences: dict[str, str] | None = None,
        *,
        dataset_digest: str | None = None,
        source: str | None = None,
    ) -> str:
        """An adapter in dev, which the alias leads to there."""
        folder = peft_folder(self.world.home.path.parent / "outside" / name, seed)
        manifest = {
            "base_digest": DIGEST,
            "licences": _OWN if licences is None else licences,
            "dataset_digest": dataset_digest,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest))
        ticket = stage(self.world.home.path, folder)
        body = {"upload": ticket, "base": "fake-model", "name": name}
        body |= {} if source is None else {"source": source}
        added = await self.call(DEV, "POST", "/admin/v1/adapters", body)
        assert added.status_code == 201, added.text
        body = {"alias": alias, "base": "fake-model", "adapter": name}
        assert (await self.call(DEV, "POST", "/admin/v1/routes", body)).is_success
        return str(added.json()["digest"])

    def gate(self, digest: str, *, passed: bool = True, **fields: Any) -> str:
        """As an evaluation job leaves it."""
        made = a_gate(
            f"gat_{len(self.store.gates(self.tenant, 100)):02}", self.tenant, passed=passed,
            base_digest=DIGEST, adapter_digest=digest, **fields,
        )  # fmt: skip
        self.store.add_gate(self.tenant, made)
        return made.id

    async def promote(
        self, to: Environment, alias: str = "bot", key: str = "", **fields: Any
    ) -> httpx2.Response:
        body = {"alias": alias, **fields}
        return await self.call(to, "POST", "/admin/v1/promotions", body, key)

    async def promoted(self, to: Environment, alias: str = "bot", **fields: Any) -> dict[str, Any]:
        done = await self.promote(to, alias, **fields)
        assert done.status_code == 201, done.text
        return dict(done.json())

    async def rolled_back(self, where: Environment, alias: str = "bot") -> dict[str, Any]:
        done = await self.call(where, "POST", "/admin/v1/rollbacks", {"alias": alias})
        assert done.status_code == 200, done.text
        return dict(done.json())

    async def says(
        self, where: Environment, prompt: str, alias: str = "bot", **headers: str
    ) -> str:
        answer = await self.chat(where, prompt, alias, **headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    async def chat(
        self, where: Environment, prompt: str, alias: str = "bot", **headers: str
    ) -> httpx2.Response:
        sent = {"authorization": f"Bearer {self.keys[where]}", **headers}
        async with httpx2.AsyncClient(
            base_url=self.world.url, headers=sent, timeout=60, verify=False
        ) as client:
            return await client.post("/v1/chat/completions", json=asked(prompt, model=alias))


def words(prompt: str, adapter: str | None) -> str:
    return "".join(tokens_for(prompt, 16, adapter))


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest_asyncio.fixture
async def ladder(tmp_path: Path) -> AsyncIterator[Ladder]:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        yield Ladder(world)


async def test_a_revision_goes_from_dev_to_staging_to_prod_on_its_gate(ladder: Ladder) -> None:
    digest = await ladder.tuned("v1", 1)
    refused = await ladder.promote(STAGING)
    assert refusal(refused) == (409, "gate_not_passed")
    assert "v1 has passed no gate: evaluate it with `freehold eval`" in refused.text
    gate = ladder.gate(digest)
    first = await ladder.promoted(STAGING)
    assert (first["gate"], first["source"], first["state"]) == (gate, "dev", "whole")
    assert first["bundle"]["adapter"] == digest
    second = await ladder.promoted(PROD)
    assert second["source"] == "staging"
    for environment in (STAGING, PROD):
        assert await ladder.says(environment, "hello") == words("hello", digest)
    listed = await ladder.call(PROD, "GET", "/admin/v1/promotions")
    assert [each["id"] for each in listed.json()["data"]] == [second["id"]]
    again = await ladder.promote(PROD)
    assert refusal(again) == (409, "conflict")


async def test_lineage_tells_the_whole_way_up_and_back(ladder: Ladder) -> None:
    digest = await ladder.tuned("v1", 1)
    gate = ladder.gate(digest)
    ups = [await ladder.promoted(STAGING), await ladder.promoted(PROD)]
    answer = await ladder.chat(PROD, "hello")
    await ladder.rolled_back(PROD)
    asked = f"/admin/v1/lineage?alias=bot&request={answer.headers['x-freehold-request-id']}"
    found = (await ladder.call(PROD, "GET", asked)).json()
    assert (found["adapter"]["digest"], found["gates"][0]["id"]) == (digest, gate)
    is_documented(found)
    way = [(each["id"], each["environment"], each["gate"]) for each in found["promotions"]]
    assert way == [(up["id"], up["environment"], gate) for up in ups]
    states = [(each["state"], each["ended_because"]) for each in found["promotions"]]
    assert states == [("whole", None), ("rolled_back", "somebody asked for it")]


async def test_what_failed_its_last_gate_is_told_what_it_lacks(ladder: Ladder) -> None:
    digest = await ladder.tuned("v1", 1)
    ladder.gate(digest)
    needs = (Verdict("exact", "at least 85 %", "61 %", False),)
    ladder.gate(digest, passed=False, verdicts=needs)
    refused = await ladder.promote(STAGING)
    assert refusal(refused) == (409, "gate_not_passed")
    assert "exact needs at least 85 % and has 61 %" in refused.text
    assert ladder.store.routes(ladder.tenant, STAGING) == []
    assert ladder.store.adapters(ladder.tenant, STAGING, 9) == []


async def test_forcing_takes_a_reason_and_is_remembered_and_recorded(ladder: Ladder) -> None:
    await ladder.tuned("v1", 1)
    refused = await ladder.promote(PROD, source="dev", force="x")
    assert refusal(refused) == (400, "invalid_value")
    done = await ladder.promoted(PROD, source="dev", force="the fair is tomorrow")
    assert (done["gate"], done["forced"]) == (None, "the fair is tomorrow")
    assert done["overridden"] == ["gate", "environment"]
    page = ladder.store.audit_records(ladder.tenant, PROD, 100)
    acts = [json.loads(each.body) for each in page if b"promotion.make" in each.body]
    assert [act["fields"] for act in acts] == [["forced", "share"]]
    route = ladder.store.routes(ladder.tenant, PROD)[0]
    assert (route.passed_by, route.promotion) == ("forced", done["id"])


async def test_an_environment_is_not_skipped(ladder: Ladder) -> None:
    ladder.gate(await ladder.tuned("v1", 1))
    refused = await ladder.promote(PROD, source="dev")
    assert refusal(refused) == (409, "conflict")
    assert "has not served in staging yet" in refused.text
    assert refusal(await ladder.promote(PROD)) == (404, "not_found")
    assert refusal(await ladder.promote(DEV)) == (409, "conflict")


@pytest.mark.parametrize(
    ("licences", "told"),
    [
        ({"base": "Apache-2.0", "dataset": "CC-BY-NC-4.0"}, "CC-BY-NC-4.0"),
        ({"dataset": "something"}, "something"),
    ],
)
async def test_licences_are_asked_about_again(
    ladder: Ladder, licences: dict[str, str], told: str
) -> None:
    ladder.gate(await ladder.tuned("v1", 1, licences=licences))
    refused = await ladder.promote(STAGING)
    assert refusal(refused) == (409, "licence_not_accepted")
    assert told in refused.text
    done = await ladder.promoted(STAGING, accept_licence="we asked the authors")
    assert done["accepted_licence"] == "we asked the authors"
    assert refusal(await ladder.promote(PROD)) == (409, "licence_not_accepted"), "each step asks"


async def test_no_route_leads_to_an_adapter_there_without_a_gate(ladder: Ladder) -> None:
    digest = await ladder.tuned("v1", 1)
    ladder.gate(digest)
    await ladder.promoted(STAGING)
    ladder.gate(digest, passed=False)
    body = {"alias": "other", "base": "fake-model", "adapter": "v1"}
    refused = await ladder.call(STAGING, "POST", "/admin/v1/routes", body)
    assert refusal(refused) == (409, "gate_not_passed")
    forced = await ladder.call(
        STAGING, "POST", "/admin/v1/routes", {**body, "force": "to look at it"}
    )
    assert forced.json()["passed_by"] == "forced"
    bare = {"alias": "bare", "base": "fake-model"}
    assert (await ladder.call(STAGING, "POST", "/admin/v1/routes", bare)).is_success


async def test_a_row_that_came_in_otherwise_is_not_served(ladder: Ladder) -> None:
    digest = await ladder.tuned("v1", 1)
    ladder.gate(digest)
    await ladder.promoted(STAGING)
    route = ladder.store.routes(ladder.tenant, STAGING)[0]
    smuggled = replace(route, id="rte_smuggled", alias="smuggled", passed_by=None)
    ladder.store.set_route(ladder.tenant, smuggled)
    ladder.world.gateway.directory.load(ladder.tenant, STAGING)
    answer = await ladder.chat(STAGING, "hello", "smuggled")
    assert refusal(answer) == (503, "adapter_unavailable")
    assert "passed no gate" in answer.text


async def test_a_share_of_conversations_goes_to_the_new_one_and_each_stays(
    ladder: Ladder,
) -> None:
    old, new = await ladder.tuned("v1", 1), ""
    ladder.gate(old)
    await ladder.promoted(STAGING)
    new = await ladder.tuned("v2", 2)
    ladder.gate(new)
    shared = await ladder.promoted(STAGING, share=30)
    assert (shared["state"], shared["share"]) == ("sharing", 30)
    met: dict[str, str] = {}
    for label in [f"c{number}" for number in range(60)] * 2:
        text = await ladder.says(STAGING, "hi", **{"x-freehold-conversation": label})
        which = {words("hi", old): "old", words("hi", new): "new"}[text]
        assert met.setdefault(label, which) == which
    counted = Counter(met.values())
    assert 8 <= counted["new"] <= 30, counted
    route = (await ladder.call(STAGING, "GET", "/admin/v1/routes/bot")).json()
    assert (route["adapter_digest"], route["candidate"]["adapter_digest"]) == (old, new)
    begun = [await ladder.says(STAGING, f"question {number}") for number in range(40)]
    kinds = {text == words(f"question {at}", new) for at, text in enumerate(begun)}
    assert kinds == {True, False}, "without a label, conversations are shared out by how they begin"
    whole = await ladder.promoted(STAGING, share=100)
    assert (whole["id"], whole["state"]) == (shared["id"], "whole")
    assert await ladder.says(STAGING, "hi") == words("hi", new)


async def test_one_conversation_stays_as_it_goes_on(ladder: Ladder) -> None:
    old = await ladder.tuned("v1", 1)
    ladder.gate(old)
    await ladder.promoted(STAGING)
    new = await ladder.tuned("v2", 2)
    ladder.gate(new)
    await ladder.promoted(STAGING, share=50)
    for number in range(12):
        messages = [{"role": "user", "content": f"first {number}"}]
        met = []
        for turn in range(3):
            headers = {"authorization": f"Bearer {ladder.keys[STAGING]}"}
            async with httpx2.AsyncClient(
                base_url=ladder.world.url, headers=headers, verify=False
            ) as client:
                body = {"model": "bot", "messages": messages}
                answer = await client.post("/v1/chat/completions", json=body)
            met.append(answer.headers["x-freehold-adapter-digest"])
            messages += [
                {"role": "assistant", "content": f"answer {turn}"},
                {"role": "user", "content": f"and {turn}?"},
            ]
        assert len(set(met)) == 1, met


async def test_a_rollback_leads_back_step_by_step(ladder: Ladder) -> None:
    digests = []
    for number in (1, 2):
        digests.append(await ladder.tuned(f"v{number}", number))
        ladder.gate(digests[-1])
        await ladder.promoted(STAGING)
    kept = await ladder.call(STAGING, "DELETE", "/admin/v1/adapters/v1")
    assert refusal(kept) == (409, "conflict")
    assert "a rollback of these would go back to: bot" in kept.text
    back = await ladder.rolled_back(STAGING)
    assert (back["state"], back["ended_because"]) == ("rolled_back", "somebody asked for it")
    assert await ladder.says(STAGING, "hello") == words("hello", digests[0])
    assert (await ladder.rolled_back(STAGING))["before"] is None
    assert (await ladder.chat(STAGING, "hello")).status_code == 404
    nothing = await ladder.call(STAGING, "POST", "/admin/v1/rollbacks", {"alias": "bot"})
    assert refusal(nothing) == (404, "not_found")


async def test_no_rollback_leads_to_what_a_revoked_key_signed(ladder: Ladder) -> None:
    for number in (1, 2):
        digest = await ladder.tuned(f"v{number}", number)
        ladder.gate(digest)
        await ladder.promoted(STAGING)
    sign = "/admin/v1/adapters/v1/signatures"
    assert (await ladder.call(STAGING, "POST", sign, None)).status_code == 201
    signatures = ladder.world.gateway.adapters.signatures
    key = signatures.current
    signatures.rotate()
    await ladder.world.gateway.routes.revoke_key(key, 0)
    refused = await ladder.call(STAGING, "POST", "/admin/v1/rollbacks", {"alias": "bot"})
    assert refusal(refused) == (400, "file_refused")
    assert f"by the key {key[:16]}, which was revoked here" in refused.text
    assert await ladder.says(STAGING, "hello") == words("hello", digest)
    assert (await ladder.call(STAGING, "POST", sign, None)).status_code == 201
    assert (await ladder.rolled_back(STAGING))["state"] == "rolled_back"


async def test_a_share_is_taken_back_and_nothing_else_moves_meanwhile(ladder: Ladder) -> None:
    old = await ladder.tuned("v1", 1)
    ladder.gate(old)
    await ladder.promoted(STAGING)
    new = await ladder.tuned("v2", 2)
    ladder.gate(new)
    refused = await ladder.promote(STAGING, "bot2", share=10)
    assert refusal(refused) == (404, "not_found")
    await ladder.promoted(STAGING, share=50)
    assert refusal(await ladder.promote(STAGING, share=50)) == (409, "conflict")
    third = await ladder.tuned("v3", 3)
    ladder.gate(third)
    assert refusal(await ladder.promote(STAGING, share=20)) == (409, "conflict")
    bare = {"alias": "bot", "base": "fake-model"}
    for method, path, body in (
        ("POST", "/admin/v1/routes", bare),
        ("DELETE", "/admin/v1/routes/bot", None),
        ("DELETE", "/admin/v1/adapters/v2", None),
    ):
        assert refusal(await ladder.call(STAGING, method, path, body)) == (409, "conflict"), path
    await ladder.rolled_back(STAGING)
    for number in range(20):
        assert await ladder.says(STAGING, f"q{number}") == words(f"q{number}", old)


async def test_an_alias_without_anything_to_share_with_is_refused(ladder: Ladder) -> None:
    ladder.gate(await ladder.tuned("v1", 1))
    refused = await ladder.promote(STAGING, share=10)
    assert refusal(refused) == (409, "conflict")
    assert "leads nowhere in staging yet" in refused.text
    assert ladder.store.adapters(ladder.tenant, STAGING, 9) == [], "nothing half is left"


async def test_limits_come_along_where_there_are_none_and_go_with_a_rollback(
    ladder: Ladder,
) -> None:
    for environment, measure, amount in (
        (DEV, Measure.TOKENS, 10**6), (DEV, Measure.REQUESTS, 10**4), (STAGING, Measure.TOKENS, 7)
    ):  # fmt: skip
        ladder.store.set_limit(ladder.tenant, Limit(
            f"lim_{environment}_{measure}", ladder.tenant, environment, None, measure, Period.DAY,
            amount, True, 1,
        ))  # fmt: skip
    ladder.gate(await ladder.tuned("v1", 1))
    done = await ladder.promoted(STAGING, with_limits=True)
    there = {
        each.measure: each.amount
        for each in ladder.store.limits(ladder.tenant)
        if each.environment is STAGING
    }
    assert there == {Measure.TOKENS: 7, Measure.REQUESTS: 10**4}
    assert len(done["bundle"]["limits"]) == 1
    await ladder.rolled_back(STAGING)
    left = [each.environment for each in ladder.store.limits(ladder.tenant)]
    assert left.count(STAGING) == 1


async def test_requests_that_run_end_as_they_began_while_their_revision_goes(
    ladder: Ladder,
) -> None:
    digests = []
    for number in (1, 2):
        digests.append(await ladder.tuned(f"v{number}", number))
        ladder.gate(digests[-1])
        await ladder.promoted(STAGING)
    prompts = [f"long {number}" for number in range(20)]
    running_ones = [asyncio.create_task(ladder.says(STAGING, each)) for each in prompts]
    await asyncio.sleep(0)
    await ladder.rolled_back(STAGING)
    for prompt, text in zip(prompts, await asyncio.gather(*running_ones), strict=True):
        assert text in {words(prompt, digest) for digest in digests}
    assert await ladder.says(STAGING, "after") == words("after", digests[0])


def _answers(
    ladder: Ladder, adapter: str, count: int, outcome: Outcome, ttft_us: int = 50_000
) -> None:
    """As requests leave them, without asking them."""
    now_us = ladder.world.gateway.clock.wall_us()
    made = []
    for number in range(count):
        name = f"req_{outcome}_{adapter[-6:]}_{ttft_us}_{number:05}"
        asked_for = reservation(
            name, tenant_id=ladder.tenant, environment="staging", alias="bot",
            base_digest=DIGEST, adapter_digest=adapter, created_at_us=now_us,
        )  # fmt: skip
        ended = settlement(
            name, outcome=outcome, ttft_us=ttft_us, duration_us=ttft_us * 2,
            settled_at_us=now_us + 1,
        )  # fmt: skip
        made += [ledger._reserved(asked_for), ledger._settled(ended)]
    ladder.store.apply(entries_of(*made))


@pytest.mark.parametrize(
    ("outcome", "ttft_us", "told"),
    [
        (Outcome.ENGINE_FAILED, 50_000, "30 of 30 requests failed, 0 of 200 before"),
        (Outcome.OK, 400_000, "the first token takes 400 ms at p95, 50 ms before"),
    ],
)
async def test_a_worse_revision_is_taken_back_by_itself(
    ladder: Ladder, outcome: Outcome, ttft_us: int, told: str
) -> None:
    old = await ladder.tuned("v1", 1)
    ladder.gate(old)
    await ladder.promoted(STAGING)
    new = await ladder.tuned("v2", 2)
    ladder.gate(new)
    shared = await ladder.promoted(STAGING, share=50)
    _answers(ladder, old, 200, Outcome.OK)
    await ladder.world.gateway.revisions.look()
    assert ladder.store.promotion(ladder.tenant, STAGING, shared["id"]).state == "sharing"
    _answers(ladder, new, 30, outcome, ttft_us)
    await ladder.world.gateway.revisions.look()
    found = ladder.store.promotion(ladder.tenant, STAGING, shared["id"])
    assert found is not None
    assert found.state is PromotionState.ROLLED_BACK
    assert found.ended_because == told
    assert found.ended_by == "gateway"
    assert found.figures["new"]["requests"] == 30
    for number in range(20):
        assert await ladder.says(STAGING, f"q{number}") == words(f"q{number}", old)


async def test_a_judge_marks_what_both_answered_and_a_worse_one_goes(ladder: Ladder) -> None:
    old = await ladder.tuned("v1", 1)
    ladder.gate(old)
    await ladder.promoted(STAGING)
    new = await ladder.tuned("v2", 2)
    ladder.gate(new)
    watch = {"judge": "judge", "least": 5}
    for told in ("no route 'judge' in staging", "nothing of that is kept"):
        refused = await ladder.promote(STAGING, share=50, watch=watch)
        assert told in refused.json()["error"]["message"]
        body = {"alias": "judge", "base": "fake-model"}
        assert (await ladder.call(STAGING, "POST", "/admin/v1/routes", body)).is_success
    kept = {"audit_content": True}
    changed = await ladder.call(STAGING, "PATCH", "/admin/v1/tenants/default", kept)
    assert changed.is_success, changed.text
    narrow = ladder.mint(STAGING, models=frozenset({"bot"}))
    not_theirs = await ladder.promote(STAGING, share=50, watch=watch, key=narrow)
    assert refusal(not_theirs) == (403, "insufficient_permissions")
    assert "This asks judge." in not_theirs.text
    shared = await ladder.promoted(STAGING, share=50, watch=watch)
    for number in range(40):
        await ladder.says(STAGING, f"question {number}")
    ladder.world.gateway.ledger.flush()

    async def judge(asked: upstream.Asked) -> None:
        if asked.path.startswith("/v1/models"):
            raise AssertionError("nothing is looked up")
        text = asked.body["messages"][1]["content"]
        number = re.search(r"question (\d+)", text)
        assert number is not None
        assert asked.body["model"] == "judge"
        is_new = words(f"question {number.group(1)}", new) in text
        await asked.say(upstream.whole(f"Because.\nMARK: {3 if is_new else 9}"))

    async with upstream.upstream(judge) as elsewhere:
        revisions = ladder.world.gateway.revisions
        assert isinstance(revisions, Revisions)
        revisions._marking._where = lambda: (elsewhere.url, True)
        await revisions.look()
    found = ladder.store.promotion(ladder.tenant, STAGING, shared["id"])
    assert found is not None
    assert found.state is PromotionState.ROLLED_BACK, found.figures
    assert found.ended_because == "judge marks its answers 3.0 of 10, 9.0 before"
    assert found.figures is not None
    assert found.figures["new"]["mark"] == 3.0
    lent = [each for each in ladder.store.keys(ladder.tenant) if each.name.startswith("judge of")]
    assert lent
    assert all(each.revoked_at_us for each in lent), "its key ends with the asking"


async def test_an_equal_revision_stays_and_a_whole_one_is_watched_for_its_time(
    ladder: Ladder,
) -> None:
    old = await ladder.tuned("v1", 1)
    ladder.gate(old)
    await ladder.promoted(STAGING)
    _answers(ladder, old, 200, Outcome.OK)
    new = await ladder.tuned("v2", 2)
    ladder.gate(new)
    watch = {"minutes": 0.0}
    whole = await ladder.promoted(STAGING, watch=watch)
    _answers(ladder, new, 100, Outcome.ENGINE_FAILED)
    await ladder.world.gateway.revisions.look()
    state = ladder.store.promotion(ladder.tenant, STAGING, whole["id"]).state
    assert state == "whole", "nobody watches it any more"
