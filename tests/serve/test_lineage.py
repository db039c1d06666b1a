"""Of any answer it can be said where it comes from: also of past ones, after its route moved and
what it was made of was removed."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import pytest_asyncio
from referencing import Registry, Resource

from freehold.catalog.adapters import Wanted, stage
from freehold.catalog.bom import bom, written
from freehold.core.acts import Acting, Via, acting_as
from freehold.core.binding import Environment
from freehold.core.gate import Verdict
from freehold.core.ids import new_id
from freehold.core.job import JobState
from freehold.core.manifest import MANIFEST
from freehold.serve.replies.lineage import Lineage
from tests.adapt.making import laid
from tests.catalog.making import peft_folder
from tests.harness import DIGEST, Running, running
from tests.serve.test_adapters import _added, _ask, _delete, _get, _led, _post, _stock
from tests.store.making import a_gate, a_job

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SCHEMAS = Path(__file__).parent.parent / "catalog" / "cyclonedx"


def _validator() -> jsonschema.Draft7Validator:
    """The official schema, with those that it refers to."""
    found = {path.name: json.loads(path.read_bytes()) for path in _SCHEMAS.iterdir()}
    registry: Registry[Any] = Registry().with_resources(
        (f"http://cyclonedx.org/schema/{name.replace('.schema', '.SNAPSHOT.schema')}",
         Resource.from_contents(each))
        for name, each in found.items()
    )  # fmt: skip
    return jsonschema.Draft7Validator(
        found["bom-1.6.schema.json"],
        registry=registry,
        format_checker=jsonschema.FormatChecker(["date-time"]),
    )


async def _dataset(world: Running) -> dict[str, Any]:
    body = {
        "upload": laid(world.home.path, 3), "name": "tickets", "licence": "CC-BY-4.0",
        "origin": "help desk, 2025", "accept_findings": "ours",
    }  # fmt: skip
    found: dict[str, Any] = (await _post(world, "/admin/v1/datasets", body)).json()
    return found


def _trained(world: Running, dataset: str, name: str = "support") -> str:
    """As a job leaves it; returns the adapter's digest."""
    gateway, tenant_id = world.gateway, world.tenant_id
    job = replace(a_job(new_id("job"), tenant_id, name=name), created_by="key_mira")
    gateway.store.add_job(tenant_id, job)
    assert gateway.store.take_job(tenant_id, job.id, "gw", 1, 9**15)
    result = {"tokens": 900, "seconds": 12.5, "held_out_loss": 0.5, "held_out_loss_before": 2.5}
    assert gateway.store.end_job(tenant_id, job.id, "gw", JobState.DONE, 2, result)
    folder = peft_folder(world.home.path.parent / "outside" / name, 41)
    manifest = {
        "base_digest": DIGEST, "dataset_digest": dataset, "recipe": {"rank": 2, "epochs": 3},
        "licences": {"base": "Apache-2.0", "dataset": "CC-BY-4.0"}, "made_with": {"torch": "2.9"},
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(manifest | {"job": job.id}))
    wanted = Wanted(stage(world.home.path, folder), "fake-model", name, f"job:{job.id}", job.id)
    with acting_as(Acting("freehold", Via.GATEWAY)):
        return gateway.adapters.add(tenant_id, Environment.DEV, wanted).digest


async def _lineage(world: Running, query: str) -> dict[str, Any]:
    answer = await _get(world, f"/admin/v1/lineage?{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    is_documented(found)
    return found


def is_documented(found: dict[str, Any]) -> None:
    """Every field that came is in the OpenAPI document's type, and none of that is missing."""
    typed = Lineage.model_validate(found).model_dump(mode="json")
    assert _fields(typed) == _fields(found)


def _fields(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _fields(each) for name, each in value.items()}
    return [_fields(each) for each in value] if isinstance(value, list) else None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with running(_stock(tmp_path_factory.mktemp("lineage") / "home")) as world:
        await world.replica.ensure_ready(20)
        yield world


async def test_a_past_answer_is_explained_after_all_that_made_it_is_gone(world: Running) -> None:
    dataset = await _dataset(world)
    digest = _trained(world, dataset["digest"])
    gate = a_gate(
        new_id("gat"), world.tenant_id, base_digest=DIGEST, adapter_digest=digest,
        verdicts=(Verdict("accuracy", "0.8 or more", "0.91", True),),
    )  # fmt: skip
    with acting_as(Acting("freehold", Via.GATEWAY)):
        world.gateway.store.add_gate(world.tenant_id, gate)
    await _led(world, "help", "support")
    answer = await _ask(world, "help")
    request = answer.headers["x-freehold-request-id"]
    during = await _lineage(world, f"request={request}")

    assert (during["alias"], during["request"]) == ("help", request)
    key = "key_" + world.key.split("_")[2]
    assert during["set_by"] == key
    assert (during["base"]["digest"], during["base"]["licence"]["spdx"]) == (DIGEST, "Apache-2.0")
    adapter, data, job = during["adapter"], during["dataset"], during["job"]
    assert (adapter["digest"], adapter["recipe"]) == (digest, {"rank": 2, "epochs": 3})
    assert [(e["by"], e["holds"]) for e in adapter["signatures"]] == [("this installation", True)]
    assert (data["name"], data["version"], data["licence"]) == ("tickets", 1, "CC-BY-4.0")
    assert (data["origin"], data["created_by"]) == ("help desk, 2025", key)
    assert (job["created_by"], job["figures"]["tokens"]) == ("key_mira", 900)
    assert [(each["id"], each["passed"]) for each in during["gates"]] == [(gate.id, gate.passed)]

    await _led(world, "help")
    assert (await _lineage(world, "alias=help"))["adapter"] is None, "it moved"
    assert (await _delete(world, "/admin/v1/adapters/support")).status_code == 200
    assert (await _delete(world, "/admin/v1/datasets/tickets")).status_code == 200
    assert (await _delete(world, f"/admin/v1/jobs/{job['id']}")).status_code == 200
    assert await _lineage(world, f"request={answer.json()['id']}") == await _lineage(
        world, f"request={request}"
    )
    after = await _lineage(world, f"request={request}&alias=help")
    for name in ("adapter", "dataset"):
        assert after[name].pop("removed_at") is not None
        assert during[name].pop("removed_at") is None
    assert after == during
    then = await _lineage(world, f"alias=help&at={during['at'].replace('+', '%2B')}")
    assert (then["adapter"]["digest"], then["since"]) == (digest, during["since"])


async def test_what_nobody_said_is_not_known(world: Running) -> None:
    digest = await _added(world, "brought", 7)
    await _led(world, "theirs", "brought")
    found = await _lineage(world, "alias=theirs")
    assert (found["adapter"]["digest"], found["adapter"]["recipe"]) == (digest, None)
    assert (found["dataset"], found["job"], found["gates"]) == (None, None, [])
    assert found["adapter"]["signatures"] == []


async def test_what_each_start_serves_is_explained_too(world: Running) -> None:
    found = await _lineage(world, "alias=fake-model")
    assert (found["adapter"], found["set_by"], found["base"]["name"]) == (None, None, "fake-model")


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 400, "invalid_value"),
        ("alias=absent", 404, "not_found"),
        ("alias=fake-model&at=1969-01-01T00:00:00Z", 404, "not_found"),
        ("alias=fake-model&at=soon", 400, "invalid_value"),
        ("request=req_absent", 404, "not_found"),
        ("request=req_absent&at=2026-01-01T00:00:00Z", 400, "invalid_value"),
    ],
)
async def test_what_cannot_be_explained_is_said(
    world: Running, query: str, status: int, code: str
) -> None:
    for path in ("lineage", "lineage/bom"):
        answer = await _get(world, f"/admin/v1/{path}?{query}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_a_request_of_another_alias_is_not_taken_for_this_ones(world: Running) -> None:
    request = (await _ask(world, "fake-model")).headers["x-freehold-request-id"]
    answer = await _get(world, f"/admin/v1/lineage?request={request}&alias=theirs")
    assert answer.status_code == 400
    assert "asked fake-model and not theirs" in answer.json()["error"]["message"]


async def test_a_bom_is_as_cyclonedx_has_it_and_the_same_each_time(world: Running) -> None:
    dataset = await _dataset(world)
    digest = _trained(world, dataset["digest"], "billing")
    await _led(world, "billing", "billing")
    whole = await _lineage(world, "alias=billing")
    gate = {
        "id": "gat_1", "environment": "dev", "suite": "s", "passed": True, "made_by": "key_1",
        "made_at": whole["at"], "verdicts": [{"name": "accuracy", "found": "0.9", "needed": "0.8"}],
    }  # fmt: skip
    move = {"id": "pro_1", "environment": "prod", "made_by": "key_1", "made_at": whole["at"],
            "forced": "urgent"}  # fmt: skip
    full = whole | {"gates": [gate], "promotions": [move]}
    for found in (full, whole, await _lineage(world, "alias=fake-model"),
                  await _lineage(world, "alias=theirs"),
                  whole | {"base": None}, whole | {"dataset": {"digest": digest, "name": None}},
                  whole | {"adapter": {"digest": digest, "name": None}}):  # fmt: skip
        _validator().validate(bom(found))
    made = bom(full)
    assert made["metadata"]["component"]["pedigree"]["ancestors"][0]["bom-ref"] == DIGEST
    metrics = made["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]
    assert metrics["performanceMetrics"][0]["value"] == "0.9 (needed: 0.8)"
    data = next(each for each in made["components"] if each["type"] == "data")
    assert data["licenses"] == [{"expression": "CC-BY-4.0"}]
    assert written(made) == written(bom(json.loads(json.dumps(full))))
    asked = [(await _get(world, "/admin/v1/lineage/bom?alias=billing")).json() for _ in range(2)]
    assert asked[0] == asked[1]
    broken = {**made, "specVersion": 1.6}
    with pytest.raises(jsonschema.ValidationError):
        _validator().validate(broken)
