"""Any OpenAI-compatible service elsewhere, commercial ones included.

Its credential comes from a file and goes to its one origin only. It runs nothing
here and proves nothing about its weights: records say so by an absent digest.
"""

import ssl
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from freehold.config.schema import UpstreamModel, UpstreamSettings
from freehold.core.engine import CHAT, COMPLETIONS, EMBEDDINGS, Capabilities, EngineCall
from freehold.core.errors import Code, UserError
from freehold.core.secret import Secret
from freehold.engines.openai_http import OpenAIHttp

# What OpenAI's API defines today; an upstream that lacks one names it in
# `refused_fields` of its settings.
_SAMPLING = {
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_tokens",
    "n",
    "presence_penalty",
    "seed",
    "stop",
    "temperature",
    "top_p",
}
_FIELDS = {
    CHAT: frozenset(
        _SAMPLING
        | {
            "audio",
            "max_completion_tokens",
            "messages",
            "modalities",
            "parallel_tool_calls",
            "prediction",
            "reasoning_effort",
            "response_format",
            "service_tier",
            "tool_choice",
            "tools",
            "top_logprobs",
            "verbosity",
            "web_search_options",
        }
    ),
    COMPLETIONS: frozenset(_SAMPLING | {"best_of", "echo", "prompt", "suffix"}),
    EMBEDDINGS: frozenset({"dimensions", "encoding_format", "input"}),
}


class RemoteClient(OpenAIHttp):
    def __init__(self, settings: UpstreamSettings, trust: ssl.SSLContext | None = None) -> None:
        super().__init__(
            settings.base_url,
            who=f"The upstream {settings.name}",
            credential=read_credential(settings),
            is_upstream=True,
            proxy=_proxy_for(settings.base_url),
            trust=trust,
        )

    async def count_prompt_tokens(self, call: EngineCall) -> int | None:
        return None

    async def identity(self) -> str | None:
        return None

    async def probe(self) -> None:
        """An upstream bills its tokens, so it is not probed."""


def capabilities(settings: UpstreamSettings, models: list[UpstreamModel]) -> Capabilities:
    tasks = {model.task for model in models}
    endpoints = ([CHAT, COMPLETIONS] if "chat" in tasks else []) + (
        [EMBEDDINGS] if "embeddings" in tasks else []
    )
    refused = frozenset(settings.refused_fields)
    lengths = [model.context_length for model in models if model.context_length]
    return Capabilities(
        fields={endpoint: _FIELDS[endpoint] - refused for endpoint in endpoints},
        context_length=max(lengths) if lengths else None,
        concurrency=settings.concurrency,
        vision=True,
        answers_whole=True,
        proves_weights=False,
    )


def _proxy_for(url: str) -> str | None:
    """The company's proxy for this URL, as the environment names it at the start."""
    parts = urlsplit(url)
    if parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)


def read_credential(settings: UpstreamSettings) -> Secret | None:
    if settings.api_key_file is None:
        return None
    path = Path(settings.api_key_file).expanduser()
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        raise UserError(
            Code.CONFIG_INVALID,
            f"The key of upstream {settings.name} cannot be read from {path}: "
            "put it there, readable by this user only.",
        ) from None
    if not text or not text.isascii() or any(character.isspace() for character in text):
        raise UserError(
            Code.CONFIG_INVALID, f"{path} must hold the key of upstream {settings.name} alone."
        )
    return Secret(text)
