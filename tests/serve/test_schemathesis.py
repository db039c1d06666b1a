"""Every operation against its own OpenAPI document, with generated requests.

The requests are the same in every run. Each goes over real HTTP to a running gateway;
whatever was sent, the answer is one that the document promises.
"""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from freehold.core.model import Task
from freehold.serve.openapi.document import build
from tests.harness import Running, running

_EXAMPLES = 25
# What no JSON Schema says: fields that need each other, and 5.0, which JSON Schema
# calls an integer.
_BEYOND_A_SCHEMA = ("needs", "which is not among", "differ", "valid integer", "token numbers",
                    "is no network", "is refused: ", "not a valid IPv4", "not seen",
                    "another question", "a request has its time",
                    "name an alias or a request")  # fmt: skip
_INFERENCE = {
    path for path, methods in build()["paths"].items()
    if methods.get("post", {}).get("tags") == ["inference"]
}  # fmt: skip


class _Served:
    """A gateway on a thread of its own: schemathesis calls, and does not await."""

    world: Running

    def __init__(self, folder: Path, task: Task) -> None:
        self._folder, self._task = folder, task
        self._begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        async with running(self._folder, task=self._task) as self.world:
            await self.world.replica.ensure_ready(20)
            self._begun.set()
            await self._ended.wait()

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._begun.wait(30)
        return self.world

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with _Served(tmp_path_factory.mktemp("chat"), Task.CHAT) as world:
        yield world


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with _Served(tmp_path_factory.mktemp("encoder"), Task.EMBEDDINGS) as world:
        yield world


def _document() -> dict[str, Any]:
    """As it is served, but for three things: the model is one that is there, or nothing
    but 404 would be seen; no Idempotency-Key, which is refused for another body; and
    answers may have no field that is not documented."""
    document: dict[str, Any] = orjson.loads(orjson.dumps(build()))
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    for path in _INFERENCE:
        operation = document["paths"][path]["post"]
        operation["parameters"] = [
            each for each in operation["parameters"] if each["name"] != "Idempotency-Key"
        ]
        body = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        shape = document["components"]["schemas"][body.rpartition("/")[2]]
        shape["properties"]["model"] = {"enum": ["fake-model"]}
    return document


_TOO_LARGE_IS_A_REFUSAL_TOO = {
    "expected-statuses": [400, 401, 403, 404, 405, 406, 409, 413, 415, 422]
}
_CONFIG = schemathesis.Config.from_dict(
    {
        "seed": 1,
        "generation": {"deterministic": True, "max-examples": _EXAMPLES},
        "checks": {
            "negative_data_rejection": _TOO_LARGE_IS_A_REFUSAL_TOO,
            "positive_data_acceptance": {"enabled": False},  # below, by code
        },
    }
)
schema = schemathesis.openapi.from_dict(_document(), config=_CONFIG)


@schema.parametrize()
@settings(
    max_examples=_EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_whatever_is_sent_the_answer_is_as_documented(
    case: schemathesis.Case, chat: Running, encoder: Running
) -> None:
    world = encoder if case.path == "/v1/embeddings" else chat
    response = case.call_and_validate(
        base_url=world.url, headers={"Authorization": f"Bearer {world.key}"}, timeout=30
    )
    assert case.meta is not None
    if response.status_code == 400 and case.meta.generation.mode.is_positive:
        error = response.json()["error"]
        is_beyond = any(words in error["message"] for words in _BEYOND_A_SCHEMA)
        is_elsewhere = case.path in _INFERENCE and error["code"] == "unsupported_parameter"
        is_in_a_file = error["code"] == "file_invalid"  # whose fields a workload has
        assert is_beyond or is_elsewhere or is_in_a_file, error


def test_the_document_is_sound_openapi_and_served_as_it_is(chat: Running) -> None:
    schema.validate()
    found = schemathesis.openapi.from_url(
        f"{chat.url}/openapi.json", headers={"Authorization": f"Bearer {chat.key}"}
    )
    assert found.raw_schema == orjson.loads(orjson.dumps(build()))
