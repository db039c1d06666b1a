"""The whole way, by the commands of docs/adapt/overview.md: a tenant's tickets become an adapter,
which is evaluated, promoted through three environments, answers beside seven other tenants', and is
rolled back."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.adapt import tickets
from tests.installation import Installation
from tests.tune.told import said

pytestmark = pytest.mark.slow

_BASE = "smollm2-135m-instruct"
_CANARIES = Path(__file__).parents[1] / "engines" / "openvino" / "reference" / "canaries"
_WORDS = {
    "cobalt": "cobalt-heron-41", "amber": "amber-fox-97", "crimson": "crimson-otter-28",
    "jade": "jade-walrus-63",
}  # fmt: skip
_OTHERS = 7
_OF_PROD = ("--env", "prod")


def _neighbours(installation: Installation) -> dict[str, tuple[str, str]]:
    """Tenants whose aliases are in prod before: their keys, and the words that only they know."""
    found = {}
    for number in range(_OTHERS):
        tenant, name = f"tenant-{number}", list(_WORDS)[number % len(_WORDS)]
        of = ("--tenant", tenant)
        said(installation, "tenant", "create", tenant)
        folder = str(_CANARIES / name)
        said(installation, "adapter", "add", folder, "--base", _BASE, *of, *_OF_PROD)
        said(installation, "route", "set", "bot", "--base", _BASE, "--adapter", name,
              "--force", "trained elsewhere", "--accept-licence", "made for tests",
              *of, *_OF_PROD)  # fmt: skip
        key = said(installation, "key", "create", "app", "--scope", "infer", *of, *_OF_PROD)
        found[key["key"]] = ("bot", f"The code word is {_WORDS[name]}.")
    return found


async def _asked(
    installation: Installation, questions: list[tuple[str, str, list[dict[str, str]]]]
) -> list[tuple[str, str | None, str]]:
    """All at once: of each the answer, under which adapter, and as which request."""
    async with httpx2.AsyncClient(base_url=installation.url, timeout=300) as client:

        async def ask(key: str, alias: str, messages: Any) -> tuple[str, str | None, str]:
            body = {"model": alias, "messages": messages, "temperature": 0, "max_tokens": 20}
            headers = {"authorization": f"Bearer {key}"}
            reply = await client.post("/v1/chat/completions", json=body, headers=headers)
            assert reply.status_code == 200, reply.text
            told = reply.headers
            text = reply.json()["choices"][0]["message"]["content"]
            return text, told.get("x-freehold-adapter-digest"), told["x-freehold-request-id"]

        return list(await asyncio.gather(*(ask(*each) for each in questions)))


def test_tickets_become_an_adapter_in_production_beside_others_and_it_goes_back(
    house: Installation, tmp_path: Path
) -> None:
    file = tickets.write(tmp_path / "tickets.jsonl", 300)
    owned = ("--licence", "LicenseRef-own", "--origin", "help desk")
    data = said(house, "data", "add", str(file), "--name", "tickets", *owned)

    told = ("--name", "support-v1", "--epochs", "2", "--yes", "--follow")
    job = said(house, "tune", "tickets", "--base", _BASE, *told)
    assert job["state"] == "done", job["error"]
    assert job["result"]["held_out_loss"] < 0.2 * job["result"]["held_out_loss_before"]
    adapter = job["result"]["adapter_digest"]

    said(house, "route", "set", "plain", "--base", _BASE)
    said(house, "route", "set", "support", "--base", _BASE, "--adapter", "support-v1")
    refused = house.run("promote", "support", "--to", "staging", "--json")
    assert refused.returncode != 0, "nothing was evaluated yet"

    found = said(house, "eval", "support", "--data", "tickets", "--against", "plain")
    assert found["passed"], found["verdicts"]
    accuracy = found["measures"][0]
    assert accuracy["candidate"]["share"] >= 0.85
    assert accuracy["incumbent"]["share"] < 0.2
    said(house, "route", "set", "support", "--base", _BASE, *_OF_PROD)
    said(house, "promote", "support", "--to", "staging")
    said(house, "promote", "support", "--to", "prod")

    neighbours = _neighbours(house)
    key = said(house, "key", "create", "desk", "--scope", "infer", *_OF_PROD)["key"]
    held_out = list(tickets.examples(330))[300:]
    word = [{"role": "user", "content": "What is the code word?"}]
    asked = [(key, "support", each["messages"][:-1]) for each in held_out]
    asked += [(other, alias, word) for other, (alias, _) in neighbours.items()]
    answers = asyncio.run(_asked(house, asked))
    ours, theirs = answers[: len(held_out)], answers[len(held_out) :]
    right = [
        a[0].strip() == e["messages"][-1]["content"] for a, e in zip(ours, held_out, strict=True)
    ]
    assert sum(right) >= 0.8 * len(right)
    assert {digest for _, digest, _ in ours} == {adapter}
    assert [text for text, _, _ in theirs] == [word for _, word in neighbours.values()]

    said(house, "rollback", "support")
    again = asyncio.run(_asked(house, asked[:1] + asked[len(held_out) :]))
    assert again[0][1] is None, "the bare base answers, as before"
    assert [text for text, _, _ in again[1:]] == [text for text, _, _ in theirs]

    past = said(house, "lineage", "--request", ours[0][2], *_OF_PROD)
    written = json.dumps(past)
    for each in (adapter, data["digest"], job["id"], found["gate"]):
        assert each in written
