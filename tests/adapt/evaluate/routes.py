"""A real gateway whose routes lead to an upstream that says what a test wants."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from freehold.adapt.evaluate.asking import Gateway
from freehold.adapt.evaluate.kept import kept
from freehold.adapt.evaluate.run import Wanted, evaluate
from freehold.config.schema import UpstreamModel, UpstreamSettings
from tests import upstream as far
from tests.harness import Running, running

Speaks = Callable[[Mapping[str, Any]], str | bytes]  # the body of a request; bytes as they are


@asynccontextmanager
async def routes(folder: Path, **speakers: Speaks) -> AsyncIterator[tuple[Running, far.Upstream]]:
    """With an alias for each."""

    async def answer(asked: far.Asked) -> None:
        said = speakers[asked.body["model"]](asked.body)
        if isinstance(said, bytes):
            await asked.say(said)
        elif asked.body.get("stream"):
            await asked.say(far.STREAM + far.token(said) + far.end(1))
        else:
            await asked.say(far.whole(said))

    async with far.upstream(answer) as found:
        settings = UpstreamSettings(
            name="far",
            base_url=f"{found.url}/v1",
            models=tuple(UpstreamModel(alias=name, upstream_name=name) for name in speakers),
        )
        async with running(folder, upstreams=[settings]) as world:
            yield world, found


async def evaluated(world: Running, folder: Path, wanted: Wanted) -> dict[str, Any]:
    async with Gateway(world.url, world.key, True, 4) as gateway:
        with kept(folder) as answers:
            found = await evaluate(gateway, wanted, answers, lambda *_: None)
            answers.end(found)
            return found


def question(body: Mapping[str, Any]) -> str:
    return str(body["messages"][-1]["content"])
