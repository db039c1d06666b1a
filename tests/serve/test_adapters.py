"""One base, the adapters of many tenants: each alias leads where its owner let it lead,
each answer proves what made it, and nobody learns of anybody else's."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from freehold.catalog.adapters import stage
from freehold.catalog.store import ModelStore
from freehold.core.binding import Environment, Scope
from freehold.core.engine import Capabilities
from freehold.core.manifest import Manifest
from freehold.deploy.reconcile import PART
from freehold.engines import registry
from freehold.engines.base import LocalModel
from freehold.engines.fake import Fake, tokens_for
from freehold.secure.keys import KeyRequest
from freehold.store import routing
from freehold.store.backend import EVERY_TENANT
from tests.catalog.making import decoder_bytes, peft_folder, write
from tests.engines.tiny import FOLDER
from tests.harness import DIGEST, Running, asked, card, running
from tests.serve.kinds import MODEL, REAL
from tests.store.making import adapter

_FORBIDDEN = ("adapter", "adapters", "lora", "lora_adapter", "lora_request", "cache_salt",
              "id_slot", "cache_prompt", "slot_id", "tenant")  # fmt: skip


def _stock(folder: Path) -> Path:
    """A home with a base that adapters can be for."""
    models = ModelStore(folder)
    models.add(card())
    write(models.blobs.path(DIGEST), decoder_bytes())
    return folder


async def _add(
    world: Running, name: str, seed: int = 1, key: str | None = None, **fields: Any
) -> httpx2.Response:
    folder = peft_folder(world.home.path.parent / "outside" / name, seed)
    ticket = stage(world.home.path, folder)
    body = {"upload": ticket, "base": "fake-model", "name": name, **fields}
    return await _post(world, "/admin/v1/adapters", body, key)


async def _post(world: Running, path: str, body: Any, key: str | None = None) -> httpx2.Response:
    headers = {"authorization": f"Bearer {key or world.key}"}
    async with httpx2.AsyncClient(base_url=world.url, headers=headers, timeout=60) as client:
        return await client.post(path, json=body)


async def _get(world: Running, path: str, key: str | None = None) -> httpx2.Response:
    headers = {"authorization": f"Bearer {key or world.key}"}
    async with httpx2.AsyncClient(base_url=world.url, headers=headers, timeout=60) as client:
        return await client.get(path)


async def _delete(world: Running, path: str, key: str | None = None) -> httpx2.Response:
    headers = {"authorization": f"Bearer {key or world.key}"}
    async with httpx2.AsyncClient(base_url=world.url, headers=headers, timeout=60) as client:
        return await client.delete(path)


async def _added(world: Running, name: str, seed: int = 1, **fields: Any) -> str:
    answer = await _add(world, name, seed, **fields)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["digest"])


async def _set(
    world: Running, alias: str, adapter: str | None = None, key: str | None = None
) -> httpx2.Response:
    body = {"alias": alias, "base": "fake-model", "adapter": adapter}
    return await _post(world, "/admin/v1/routes", body, key)


async def _led(world: Running, alias: str, adapter: str | None = None) -> None:
    answer = await _set(world, alias, adapter)
    assert answer.status_code == 200, answer.text


async def _ask(
    world: Running, model: str, prompt: str = "hello", key: str | None = None, **fields: Any
) -> httpx2.Response:
    return await _post(world, "/v1/chat/completions", asked(prompt, model=model, **fields), key)


def _text(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def _words(prompt: str, adapter: str | None, count: int = 16) -> str:
    return "".join(tokens_for(prompt, count, adapter))


def _code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def _other_tenant(world: Running) -> str:
    """A key, with all rights, of a tenant of its own."""
    world.gateway.store.add_tenant("ten_other", "other", 1)
    wanted = KeyRequest(
        "ten_other", Environment.DEV, "theirs", frozenset({Scope.INFER, Scope.ADMIN})
    )
    _, key = world.gateway.keyring.mint(wanted)
    assert key is not None
    return key.reveal()


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_no_route_leads_to_an_adapter_of_another_chat_template(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        added = (await _add(world, "tuned", 77)).json()
        gateway = world.gateway
        kept = gateway.adapters.get(world.tenant_id, Environment.DEV, added["digest"])
        gateway.adapters.remove(world.tenant_id, Environment.DEV, "tuned")
        manifest = Manifest(DIGEST, None, "sha256:" + "e" * 64, None)
        other = replace(kept, manifest=manifest)
        gateway.store.add_adapters(world.tenant_id, [other])
        body = {"alias": "tuned-bot", "base": "fake-model", "adapter": "tuned"}
        refused = await _post(world, "/admin/v1/routes", body)
        assert refused.status_code == 409
        assert refused.json()["error"]["code"] == "adapter_mismatch"
        assert "trained with the chat template sha256:eeee" in refused.json()["error"]["message"]


async def test_an_alias_answers_under_its_adapter_and_the_answer_and_the_record_say_so(
    tmp_path: Path,
) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        digest = await _added(world, "support")
        shown = (await _set(world, "help", "support")).json()
        assert (shown["adapter"], shown["adapter_digest"], shown["managed"]) == (
            "support", digest, False
        )  # fmt: skip
        await _led(world, "plain")
        for alias, under in (("help", digest), ("plain", None), ("fake-model", None)):
            whole = await _ask(world, alias)
            assert _text(whole) == _words("hello", under)
            streamed = await _ask(world, alias, stream=True)
            for answer in (whole, streamed):
                assert answer.headers["x-freehold-model-digest"] == DIGEST
                assert answer.headers.get("x-freehold-adapter-digest") == under
            assert '"adapter"' not in streamed.text
        rows = await world.settled(6)
        found = Counter((row["alias"], row["adapter_digest"], row["outcome"]) for row in rows)
        assert found == {
            ("help", digest, "ok"): 2, ("plain", None, "ok"): 2, ("fake-model", None, "ok"): 2
        }  # fmt: skip
        models = {each["id"]: each for each in (await _get(world, "/v1/models")).json()["data"]}
        assert models["help"]["freehold"]["adapter_digest"] == digest
        usage = (await _get(world, "/admin/v1/usage")).json()["data"]
        assert {(row["alias"], row["adapter_digest"]) for row in usage} == {
            ("help", digest), ("plain", None), ("fake-model", None)
        }  # fmt: skip


async def test_nobody_learns_of_another_tenants_aliases_and_adapters_or_uses_them(
    tmp_path: Path,
) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        theirs = _other_tenant(world)
        digest = await _added(world, "secret-work")
        await _led(world, "Secret", "secret-work")

        for alias in ("Secret", "fake-model", "never-there"):
            refused = await _ask(world, alias, key=theirs)
            assert _code(refused) == (404, "model_not_found")
            said = refused.json()["error"]["message"].replace(alias, "X")
            one = await _get(world, f"/v1/models/{alias}", theirs)
            assert said == one.json()["error"]["message"].replace(alias, "X")
        assert (await _get(world, "/v1/models", theirs)).json()["data"] == []
        for path in ("/admin/v1/adapters", "/admin/v1/routes"):
            assert (await _get(world, path, theirs)).json()["data"] == []

        def of(answer: httpx2.Response, name: str) -> tuple[Any, ...]:
            return (*_code(answer), answer.json()["error"]["message"].replace(name, "X"))

        for there, absent in (("secret-work", "no-such-one"), (digest, "sha256:" + "0" * 64)):
            pairs = [(await _set(world, "mine", name, theirs), name) for name in (there, absent)]
            for method in (_get, _delete):
                path = "/admin/v1/adapters"
                both = [(await method(world, f"{path}/{n}", theirs), n) for n in (there, absent)]
                assert of(*both[0]) == of(*both[1])
                assert both[0][0].status_code == 404
            assert of(*pairs[0]) == of(*pairs[1])
            assert pairs[0][0].status_code == 404
        for alias in ("Secret", "never-there"):
            answer = await _delete(world, f"/admin/v1/routes/{alias}", theirs)
            assert _code(answer) == (404, "not_found")
        assert _text(await _ask(world, "Secret")) == _words("hello", digest)


async def test_equal_names_and_look_alikes_resolve_inside_their_tenant_only(
    tmp_path: Path,
) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        theirs = _other_tenant(world)
        mine = await _added(world, "same", 1)
        answer = await _add(world, "same", 2, theirs)
        other = answer.json()["digest"]
        await _led(world, "same", "same")
        assert (await _set(world, "same", "same", theirs)).status_code == 200
        # A base's name is an alias like any other where its tenant gives it.
        assert (await _set(world, "fake-model", "same", theirs)).status_code == 200
        assert mine != other
        assert _text(await _ask(world, "same")) == _words("hello", mine)
        assert _text(await _ask(world, "same", key=theirs)) == _words("hello", other)
        assert _text(await _ask(world, "fake-model", key=theirs)) == _words("hello", other)
        assert _text(await _ask(world, "fake-model")) == _words("hello", None)
        for alias in ("Same", "same ", " same", "s\u0430me", "same\u200b", "../same", "a/../same",
                      "./same", "same/", "%73ame", "same\x00", mine, other, DIGEST,
                      "ten_other/same", "same:latest"):  # fmt: skip
            answer = await _ask(world, alias)
            assert answer.status_code in (400, 404), alias
            assert "choices" not in answer.json()
        rows = await world.settled(2)
        assert {row["alias"] for row in rows} == {"same", "fake-model"}


async def test_a_moved_alias_answers_wholly_under_one_adapter_or_the_other(
    tmp_path: Path,
) -> None:
    """Hundreds of requests, some streaming for long, while their alias moves."""
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        digests = [await _added(world, f"v{number}", number) for number in range(4)]
        await _led(world, "live", "v0")
        answers: list[tuple[str, str | None, str]] = []
        over = asyncio.Event()

        async def client(number: int) -> None:
            turn = 0
            async with world.http() as http:
                while not over.is_set():
                    turn += 1
                    prompt = f"[[slow 0.004]] {number} {turn}"
                    body = asked(prompt, model="live", stream=bool(turn % 2))
                    answer = await http.post("/v1/chat/completions", json=body)
                    assert answer.status_code == 200, answer.text
                    under = answer.headers["x-freehold-adapter-digest"]
                    if turn % 2:
                        assert answer.text.rstrip().endswith("data: [DONE]")
                        for word in tokens_for(prompt, 16, under):
                            assert f'"content":"{word}"' in answer.text
                    else:
                        assert _text(answer) == _words(prompt, under)
                    answers.append((under, prompt, answer.headers["x-freehold-request-id"]))

        clients = [asyncio.create_task(client(number)) for number in range(8)]
        for move in range(1, 13):
            before = len(answers)
            while len(answers) < before + 20:
                await asyncio.sleep(0.01)
                assert not any(task.done() for task in clients)
            wanted = digests[move % 4]
            await _led(world, "live", f"v{move % 4}")
            assert (await _ask(world, "live")).headers["x-freehold-adapter-digest"] == wanted
        over.set()
        await asyncio.gather(*clients)

        rows = {row["id"]: row for row in await world.settled(len(answers) + 12)}
        assert {row["outcome"] for row in rows.values()} == {"ok"}
        for under, _, request_id in answers:
            assert rows[request_id]["adapter_digest"] == under
        assert {under for under, _, _ in answers} == set(digests)

        async def only_one_is_left() -> bool:
            return bool((await world.seen())["adapters"] == 1)

        await _until(only_one_is_left)


async def test_an_adapter_stays_as_long_as_any_tenants_route_names_it(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        theirs = _other_tenant(world)
        digest = await _added(world, "a")
        await _add(world, "a", 1, theirs)
        await _led(world, "one", "a")
        await _led(world, "two", "a")
        assert (await _set(world, "one", "a", theirs)).status_code == 200
        for left in (3, 2):
            assert (await world.seen())["adapters"] == 1, left
            path = "/admin/v1/routes/one"
            assert (await _delete(world, path, theirs if left == 2 else None)).status_code == 200
            assert _text(await _ask(world, "two")) == _words("hello", digest)
        await _led(world, "two")

        async def gone() -> bool:
            return bool((await world.seen())["adapters"] == 0)

        await _until(gone)
        assert _text(await _ask(world, "two")) == _words("hello", None)


async def test_what_began_under_an_adapter_ends_under_it_though_its_alias_moved_on(
    tmp_path: Path,
) -> None:
    async with running(_stock(tmp_path / "home"), streams=1) as world:
        await world.replica.ensure_ready(20)
        old, new = await _added(world, "old", 1), await _added(world, "new", 2)
        await _led(world, "live", "old")
        # One place: the second is bound to the old adapter and waits for the first.
        prompts = [f"[[slow 0.03]][[tokens 30]] {number}" for number in range(2)]
        running_ones = [asyncio.create_task(_ask(world, "live", prompt)) for prompt in prompts]
        while len(world.gateway.watch) < 2:
            await asyncio.sleep(0.01)
        await _led(world, "live", "new")
        assert (await world.seen())["adapters"] == 2, "nobody took the old one away"
        late = await _ask(world, "live", "late")
        assert _text(late) == _words("late", new)
        for prompt, task in zip(prompts, running_ones, strict=True):
            assert _text(await task) == _words(prompt, old, 30)
        assert _code(await _delete(world, "/admin/v1/adapters/new")) == (409, "conflict")
        assert (await _delete(world, "/admin/v1/adapters/old")).status_code == 200


@pytest.mark.parametrize("garbage", ["wrong-adapter", "no-adapter"])
async def test_an_answer_that_does_not_prove_its_adapter_is_discarded(
    tmp_path: Path, garbage: str
) -> None:
    async with running(_stock(tmp_path / "home"), f"--garbage={garbage}") as world:
        await world.replica.ensure_ready(20)
        digest = await _added(world, "a")
        await _led(world, "live", "a")
        for stream in (False, True):
            answer = await _ask(world, "live", stream=stream)
            assert _code(answer) == (502, "identity_mismatch")
            assert _words("hello", digest)[:9] not in answer.text
        bare = await _ask(world, "fake-model")
        if garbage == "wrong-adapter":
            assert _code(bare) == (502, "identity_mismatch"), "nor the base under an adapter"
        else:
            assert _text(bare) == _words("hello", None)
        rows = await world.settled(3)
        bad = [row for row in rows if row["alias"] == "live"]
        assert {row["outcome"] for row in bad} == {"engine_failed"}
        assert {row["error_code"] for row in bad} == {"identity_mismatch"}


async def test_a_route_to_an_adapter_that_the_engine_refuses_is_not_set(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home"), "--refuse-adapters") as world:
        await world.replica.ensure_ready(20)
        await _added(world, "a")
        await _led(world, "live")
        refused = await _set(world, "live", "a")
        assert _code(refused) == (400, "file_refused")
        assert "it takes none" in refused.json()["error"]["message"]
        assert _text(await _ask(world, "live")) == _words("hello", None)
        assert (await _set(world, "new", "a")).status_code == 400
        assert _code(await _ask(world, "new")) == (404, "model_not_found")
        assert (await _delete(world, "/admin/v1/adapters/a")).status_code == 200


class _WithoutAdapters(Fake):
    def capabilities(self, model: LocalModel) -> Capabilities:
        able = super().capabilities(model)
        return Capabilities(able.fields, able.context_length, able.concurrency)


async def test_an_engine_without_adapters_refuses_the_route_and_names_some_that_can(
    tmp_path: Path,
) -> None:
    async with running(_stock(tmp_path / "home"), engine=_WithoutAdapters()) as world:
        await world.replica.ensure_ready(20)
        await _added(world, "a")
        refused = await _set(world, "live", "a")
        assert _code(refused) == (400, "unsupported_parameter")
        assert ", ".join(registry.with_adapters()) in refused.json()["error"]["message"]
        await _led(world, "live")
        assert _text(await _ask(world, "live")) == _words("hello", None)


async def test_a_route_left_from_an_engine_with_adapters_never_answers_from_the_base(
    tmp_path: Path,
) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        await _added(world, "a")
        await _led(world, "live", "a")
    async with running(tmp_path / "home", engine=_WithoutAdapters()) as world:
        await world.replica.ensure_ready(20)
        assert _code(await _ask(world, "live")) == (503, "adapter_unavailable")
        assert _text(await _ask(world, "fake-model")) == _words("hello", None)


async def test_a_killed_engine_has_its_adapters_again_before_it_serves(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        digests = [await _added(world, f"v{number}", number) for number in range(3)]
        for number in range(3):
            await _led(world, f"a{number}", f"v{number}")
        for _ in range(3):
            pid = world.replica.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            answers = await asyncio.gather(
                *(_ask(world, f"a{number % 3}", f"p{number}") for number in range(24))
            )
            for number, answer in enumerate(answers):
                assert _text(answer) == _words(f"p{number}", digests[number % 3])
        assert (await world.seen())["adapters"] == 3
        assert {row["outcome"] for row in await world.settled(72)} == {"ok"}


async def test_an_engine_that_forgets_is_told_again_and_nobody_notices(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home"), "--forget-adapters=5") as world:
        await world.replica.ensure_ready(20)
        digest = await _added(world, "a")
        await _led(world, "live", "a")
        for number in range(12):
            assert _text(await _ask(world, "live", f"p{number}")) == _words(f"p{number}", digest)
        assert (await world.seen())["told"] >= 2
        assert world.replica.restarts == 0


async def test_a_start_tells_its_engine_before_it_serves_and_leaves_out_a_spoilt_one(
    tmp_path: Path,
) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        good, bad = await _added(world, "good", 1), await _added(world, "bad", 2)
        await _led(world, "good", "good")
        await _led(world, "bad", "bad")
        (stored,) = world.gateway.store.adapters_called(world.tenant_id, Environment.DEV, "bad")
        path = world.gateway.adapters.path(stored.weights_digest)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)

    async with running(tmp_path / "home") as world:
        assert _text(await _ask(world, "good")) == _words("hello", good)
        assert _code(await _ask(world, "bad")) == (503, "adapter_unavailable")
        assert _text(await _ask(world, "fake-model")) == _words("hello", None)
        (pool,) = (await _get(world, "/admin/v1/status")).json()["pools"]
        assert pool["refused_adapters"] == 1
        # Added again, it is sound again.
        assert await _added(world, "bad", 2) == bad
        await _led(world, "bad", "bad")
        assert _text(await _ask(world, "bad")) == _words("hello", bad)


async def test_an_adapter_that_the_disk_spoils_under_a_running_engine_is_refused_alone(
    tmp_path: Path,
) -> None:
    """By the real engine, when the adapter is first used; its own clients are not blamed."""
    adapters = FOLDER / MODEL / "adapters"
    async with REAL.running(tmp_path) as world:
        for path in sorted(adapters.iterdir()):
            ticket = stage(world.home.path, path)
            body = {"upload": ticket, "base": "fake-model", "name": path.name}
            assert (await _post(world, "/admin/v1/adapters", body)).status_code == 201
            await _led(world, path.name, path.name)
        bad, good, *_ = sorted(path.name for path in adapters.iterdir())
        (stored,) = world.gateway.store.adapters_called(world.tenant_id, Environment.DEV, bad)
        blob = world.gateway.adapters.path(stored.weights_digest)
        blob.unlink()

        for _ in range(3):
            assert _code(await _ask(world, bad)) == (503, "adapter_unavailable")
            assert (await _ask(world, good)).status_code == 200
            assert (await _ask(world, "fake-model")).status_code == 200
        (pool,) = (await _get(world, "/admin/v1/status")).json()["pools"]
        assert (pool["refused_adapters"], world.replica.restarts) == (1, 0)

        ticket = stage(world.home.path, adapters / bad)
        body = {"upload": ticket, "base": "fake-model", "name": bad}
        assert (await _post(world, "/admin/v1/adapters", body)).status_code == 201
        await _led(world, bad, bad)
        assert (await _ask(world, bad)).status_code == 200


async def test_clients_choose_no_adapter_salt_or_slot_and_the_engine_gets_the_gateways(
    tmp_path: Path,
) -> None:
    async with running(_stock(tmp_path / "home"), "--salted") as world:
        await world.replica.ensure_ready(20)
        theirs = _other_tenant(world)
        digest = await _added(world, "a")
        await _add(world, "a", 1, theirs)
        await _led(world, "live", "a")
        await _set(world, "live", "a", theirs)
        for field in _FORBIDDEN:
            for value in (digest, [], 0, {"id": 1}):
                answer = await _ask(world, "live", **{field: value})
                assert _code(answer) == (400, "unknown_parameter"), field
        headers = {"x-request-id": "mine", "x-freehold-adapter-digest": "sha256:" + "0" * 64,
                   "x-tenant": "ten_other"}  # fmt: skip
        async with world.http() as http:
            await http.post("/v1/chat/completions", json=asked("h", model="live"), headers=headers)
        await _ask(world, "live", "h", theirs)
        await _ask(world, "fake-model", "h")
        mine, other, bare = (await world.seen())["given"]
        assert (mine["adapter"], other["adapter"], bare["adapter"]) == (digest, digest, None)
        assert mine["tenant"] == bare["tenant"] == f"{world.tenant_id}/dev"
        assert other["tenant"] == "ten_other/dev"
        salts = {each["cache_salt"] for each in (mine, other, bare)}
        assert len(salts) == 3
        assert all(len(salt) == 64 for salt in salts)
        assert not any(digest[7:] in salt for salt in salts)


async def test_an_engine_that_keeps_nothing_gets_no_salt(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await _ask(world, "fake-model", "h")
        assert [each["cache_salt"] for each in (await world.seen())["given"]] == [""]


async def test_a_persons_alias_hides_the_served_model_of_that_name_also_after_a_start(
    tmp_path: Path,
) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        digest = await _added(world, "a")
        await _led(world, "fake-model", "a")
        assert _text(await _ask(world, "fake-model")) == _words("hello", digest)
    async with running(tmp_path / "home") as world:
        assert _text(await _ask(world, "fake-model")) == _words("hello", digest)
        assert (await _delete(world, "/admin/v1/routes/fake-model")).status_code == 200
        assert _text(await _ask(world, "fake-model")) == _words("hello", None)
        assert _code(await _delete(world, "/admin/v1/routes/fake-model")) == (409, "conflict")


async def test_files_go_with_their_last_adapter(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        theirs = _other_tenant(world)
        digest = await _added(world, "a")
        assert await _added(world, "a") == digest, "the same again"
        assert (await _add(world, "b", 1)).status_code == 409, "the same under another name"
        assert (await _add(world, "a", 2)).status_code == 409, "another under the same name"
        assert (await _add(world, "a", 1, theirs)).json()["digest"] == digest
        blobs = world.home.path / "blobs" / "sha256"
        assert len(list(blobs.iterdir())) == 3
        assert list((world.home.path / "cache" / "adapters").iterdir()) == []
        assert (await _delete(world, "/admin/v1/adapters/a")).status_code == 200
        assert len(list(blobs.iterdir())) == 3
        assert (await _delete(world, f"/admin/v1/adapters/{digest}", theirs)).status_code == 200
        assert [path.name for path in blobs.iterdir()] == [DIGEST.removeprefix("sha256:")]


async def test_no_request_names_a_path_or_what_another_brought(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        outside = peft_folder(tmp_path / "outside" / "a")
        stage(world.home.path, outside)
        for upload in ("../../../outside/a", str(outside), "", "0" * 32, "0" * 31 + "/", "." * 32):
            body = {"upload": upload, "base": "fake-model", "name": "a"}
            answer = await _post(world, "/admin/v1/adapters", body)
            assert answer.status_code in (400, 404), upload
        body = {"path": str(outside), "base": "fake-model", "name": "a"}
        assert _code(await _post(world, "/admin/v1/adapters", body))[0] == 400
        assert (await _get(world, "/admin/v1/adapters")).json()["data"] == []
        assert (outside / "adapter_config.json").exists()


async def test_each_environment_has_its_own_and_needs_its_own_key(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        digest = await _added(world, "a")
        both = frozenset({Scope.INFER, Scope.ADMIN})
        wanted = KeyRequest(world.tenant_id, Environment.PROD, "prod", both)
        _, key = world.gateway.keyring.mint(wanted)
        assert key is not None
        prod = key.reveal()
        assert _code(await _add(world, "b", 2, environment="prod")) == (
            403,
            "insufficient_permissions",
        )
        assert (await _get(world, "/admin/v1/adapters?environment=prod")).status_code == 403
        assert _code(await _set(world, "live", "a", prod)) == (404, "not_found")
        assert (await _add(world, "a", 1, prod)).status_code == 201
        body = {"alias": "live", "base": "fake-model", "adapter": "a", "force": "a test"}
        assert (await _post(world, "/admin/v1/routes", body, prod)).status_code == 200
        assert _text(await _ask(world, "live", key=prod)) == _words("hello", digest)
        assert _code(await _ask(world, "live")) == (404, "model_not_found")


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_ever_so_many_adapters_are_with_the_engine_before_it_serves(
    tmp_path: Path, count: int
) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        store, tenant = world.gateway.store, world.tenant_id
        (bare,) = store.routes(tenant, Environment.DEV)
        made = [adapter(tenant, f"v{number}", base_digest=DIGEST) for number in range(count)]
        for number, each in enumerate(made):
            digest = f"sha256:{number:064x}"
            made[number] = replace(each, config_digest=digest, weights_digest=digest)
        store.add_adapters(tenant, made)
        rows = [
            replace(bare, id=f"r{number}", alias=f"a{number}", managed=False,
                    adapter_digest=each.digest)
            for number, each in enumerate(made)
        ]  # fmt: skip
        with store._writing(EVERY_TENANT) as connection:
            routing._insert(connection, rows)

    async with running(tmp_path / "home", "--trust-adapters") as world:
        for number in (0, 3_137, count - 1):
            answer = await _ask(world, f"a{number}")
            assert _text(answer) == _words("hello", made[number].digest)
        seen = await world.seen()
        assert (seen["adapters"], seen["told"]) == (count, count // PART)
        moved = await _set(world, "a1", "v2")
        assert moved.status_code == 200
        assert _text(await _ask(world, "a1")) == _words("hello", made[2].digest)

        async def one_less() -> bool:
            return bool((await world.seen())["adapters"] == count - 1)

        await _until(one_less)


async def test_long_lists_come_in_pages(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        await world.replica.ensure_ready(20)
        for number in range(5):
            await _added(world, f"v{number}", number)
            await _led(world, f"a{number}", f"v{number}")
        for path, field, count in (("adapters", "name", 5), ("routes", "alias", 6)):
            names, after = [], ""
            while True:
                page = (await _get(world, f"/admin/v1/{path}?limit=2&after={after}")).json()
                names += [each[field] for each in page["data"]]
                after = names[-1]
                if not page["has_more"]:
                    break
            assert names == sorted(names)
            assert len(names) == count


class _Claiming(Fake):
    def capabilities(self, model: LocalModel) -> Capabilities:
        return replace(super().capabilities(model), proves_adapters=False)


async def test_an_adapter_that_an_engine_only_claims_is_told_as_claimed(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home"), engine=_Claiming()) as world:
        await world.replica.ensure_ready(20)
        await _added(world, "a")
        await _led(world, "live", "a")
        for alias, proof in (("live", "claimed"), ("fake-model", "proved")):
            answer = await _ask(world, alias)
            assert answer.status_code == 200
            assert answer.headers["x-freehold-weights"] == proof
