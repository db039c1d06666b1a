"""Answers that call functions, found good: what is learned is the call as the model made it."""

from pathlib import Path
from typing import Any

import httpx2
import orjson

from freehold.config.schema import OpenVinoSettings
from freehold.core.dataset import TRAIN
from freehold.engines.openvino.engine import OpenVino
from tests.adapt.making import lines
from tests.engines.openvino.tool_models import FAMILIES, local_model
from tests.harness import running

_SETTINGS = OpenVinoSettings(
    threads=1, streams=4, context_length=2048, weights="float32", kv_cache_bytes=16 * 1024 * 1024
)
_WEATHER: dict[str, Any] = {
    "name": "weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
_CHAT: dict[str, Any] = {
    "model": "fake-model",
    "tools": [{"type": "function", "function": _WEATHER}],
    "tool_choice": "required",
    "parallel_tool_calls": False,
}


async def _good(client: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> httpx2.Response:
    answer = await client.post(path, json=body)
    assert answer.is_success, answer.text
    said = {"request_id": answer.headers["x-freehold-request-id"], "rating": "up"}
    assert (await client.post("/v1/feedback", json=said)).is_success
    return answer


def _asked(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


async def test_calls_that_were_found_good_are_learned_with_what_could_be_called(
    tmp_path: Path,
) -> None:
    model, engine = local_model(tmp_path / "models", FAMILIES["qwen"]), OpenVino(_SETTINGS)
    async with (
        running(tmp_path / "home", engine=engine, model=model) as world,
        world.http() as client,
    ):
        kept = {"feedback": True, "audit_content": True}
        assert (await client.patch("/admin/v1/tenants/default", json=kept)).is_success
        chat = "/v1/chat/completions"
        answer = await _good(client, chat, {**_CHAT, "messages": _asked("whole")})
        called = answer.json()["choices"][0]["message"]
        await _good(client, chat, {**_CHAT, "messages": _asked("streamed"), "stream": True})
        result = {
            "role": "tool", "tool_call_id": called["tool_calls"][0]["id"], "content": "sunny",
        }  # fmt: skip
        told = [*_asked("told"), called, result]
        await _good(client, chat, {**_CHAT, "messages": told})
        response = {
            "model": "fake-model", "tool_choice": "required",
            "tools": [{"type": "function", **_WEATHER}],
        }  # fmt: skip
        for stream in (False, True):
            body = {**response, "input": f"response {stream}", "stream": stream}
            await _good(client, "/v1/responses", body)
        made = await client.post(
            "/admin/v1/datasets/from-feedback",
            json={"name": "calls", "licence": "LicenseRef-own", "held_out": 0},
        )
        assert made.status_code == 201, made.text
        assert made.json()["report"]["sources"] == {"thumbs up": 5}
        digest = made.json()["digest"][7:]
        found = lines(world.home.path / "data" / world.tenant_id / "dev" / digest / TRAIN)
    by_question = {each["messages"][0]["content"]: each for each in found}
    assert set(by_question) == {"whole", "streamed", "told", "response False", "response True"}
    for each in by_question.values():
        (tool,) = each["tools"]
        assert tool["function"]["parameters"] == _WEATHER["parameters"]
        (call,) = each["messages"][-1]["tool_calls"]
        assert call["function"]["name"] == "weather"
        assert orjson.loads(call["function"]["arguments"])["city"] in ("Paris", "Rome")
    assert by_question["whole"]["messages"][-1]["tool_calls"] == called["tool_calls"]
    _, earlier, told_back, _ = by_question["told"]["messages"]
    assert (earlier["weight"], earlier["tool_calls"]) == (0, called["tool_calls"])
    assert told_back == {**result, "role": "tool"}
