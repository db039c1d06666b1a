"""What passes between the gateway, the engines and the places they run in."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHAT = "chat/completions"
COMPLETIONS = "completions"
EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """How to start one engine process, said without naming where.

    The process listens on `socket_path` (a unix socket), takes no secret from its
    environment, and ends by itself when its standard input closes.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    socket_path: str
    ready_timeout_s: float


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do for one model; what is not listed is refused by name.

    `fields` maps an endpoint to the OpenAI fields the engine honours there.
    `answers_whole` means that a call without streaming is sent as such; otherwise
    the gateway always streams from the engine and assembles the answer, so that a
    hang is noticed and an aborted answer can be billed. `adapters` means that one
    process answers under any of the adapters it was told of, and says in every chunk
    under which (`adapter`: a digest or null); `salted`, that it keeps prefixes between
    requests and finds them only under the salt they came with. `proves_weights` means
    that chunks name the weights that computed them; otherwise, the ones asked for.
    `proves_adapters` says it of the adapter, where the base is proved.
    """

    fields: Mapping[str, frozenset[str]]
    context_length: int | None
    concurrency: int
    vision: bool = False
    answers_whole: bool = False
    adapters: bool = False
    salted: bool = False
    proves_weights: bool = True
    proves_adapters: bool = True

    @property
    def endpoints(self) -> frozenset[str]:
        return frozenset(self.fields)


@dataclass(frozen=True, slots=True)
class EngineCall:
    """One request as an engine gets it.

    `body` is an OpenAI body that the gateway has validated against the engine's
    capabilities, without `model` and `stream`. `model` is the engine's own name
    for the weights: a digest for our processes, the upstream's name for a remote.
    `adapter` is the digest of the adapter to answer under, None the bare base.
    """

    endpoint: str
    model: str
    body: dict[str, Any]
    request_id: str
    adapter: str | None = None
    cache_salt: str = ""
    tenant: str = ""  # whose turn it is; an opaque name
    priority: str = "interactive"


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """A stored PEFT adapter as an engine process reads it. `digest` is the SHA-256 of
    the sorted `name digest` lines of `adapter_config.json` and
    `adapter_model.safetensors`, which lie at `config` and `weights`."""

    digest: str
    config: Path
    weights: Path
