"""Another service over TCP: a whole `freehold up`, with its default engine behind it, as it
is in reality. Where one must die, the fake engine on a port stands for it.
"""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from freehold.config.schema import UpstreamModel, UpstreamSettings
from freehold.engines import remote
from freehold.engines.base import EngineClient, LocalModel
from freehold.engines.fake import Fake
from freehold.engines.remote import RemoteClient
from tests.contract.engines import fake, llama_cpp
from tests.contract.entry import Entry as Contract
from tests.contract.entry import Place, Promise, Running, started
from tests.harness import card

_STREAMS, _CONTEXT = 8, 4096  # fewer streams than `freehold up` has
# What the upstream refuses itself, said as its operator would say it.
_REFUSED = (
    "audio", "best_of", "echo", "modalities", "prediction", "reasoning_effort", "service_tier",
    "suffix", "verbosity", "web_search_options",
)  # fmt: skip


class Entry(Contract):
    name = "remote"
    cannot: Mapping[Promise, str] = {
        Promise.IDENTITY: "it cannot prove another machine's weights",
        Promise.COUNT: "OpenAI's API has no endpoint for it",
        Promise.PROBE: "an upstream bills its tokens, so it is not probed",
        Promise.PROCESS: "it runs elsewhere",
        Promise.FORM_AND_TOOLS: "this upstream's engine cannot",
        Promise.KEEPS_NOTHING: "this upstream finds the prefixes of its own tenant again",
    }

    @asynccontextmanager
    async def serving(self, place: Place) -> AsyncIterator[Running]:
        installed = place.installation()
        settings = _settings(installed.url, str(installed.home / "admin.key"))
        children = psutil.Process(installed.process.pid).children()
        (engine,) = [child for child in children if _is_engine(child)]
        client = RemoteClient(settings)
        yield _running(client, settings, engine, dict(llama_cpp.Entry.endless))
        await client.close()

    @asynccontextmanager
    async def expendable(self, place: Place) -> AsyncIterator[Running]:
        port = _free_port()
        settings = _settings(f"http://127.0.0.1:{port}", None)
        client = RemoteClient(settings)
        engine, model = Fake((f"--port={port}",)), LocalModel(card(), Path("/none"))
        unused = str(place.folder / "unused.sock")
        async with started(
            engine, model, unused, place.folder, lambda: client.get_json("models")
        ) as pid:
            yield _running(client, settings, psutil.Process(pid), dict(fake.Entry.endless))
        await client.close()

    def nobody(self) -> EngineClient:
        return RemoteClient(_settings(f"http://127.0.0.1:{_free_port()}", None))


def _settings(url: str, key_file: str | None) -> UpstreamSettings:
    model = UpstreamModel(alias="elsewhere", upstream_name=llama_cpp.MODEL, context_length=_CONTEXT)
    return UpstreamSettings(
        name="other-house",
        base_url=f"{url}/v1",
        api_key_file=key_file,
        concurrency=_STREAMS,
        refused_fields=_REFUSED,
        models=(model,),
    )


def _running(
    client: RemoteClient,
    settings: UpstreamSettings,
    process: psutil.Process,
    endless: dict[str, object],
) -> Running:
    capabilities = remote.capabilities(settings, list(settings.models))
    return Running(client, capabilities, llama_cpp.MODEL, process, endless)


def _is_engine(child: psutil.Process) -> bool:
    return "freehold.engines.openvino.worker" in child.cmdline()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
