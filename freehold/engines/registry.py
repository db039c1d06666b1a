"""The engines by name; each is imported only when it is chosen."""

from collections.abc import Callable
from pathlib import Path

from freehold.config.schema import EngineSettings
from freehold.core.errors import Code, UserError
from freehold.core.peft import RankLimit
from freehold.engines.base import Engine


def _llama_cpp(settings: EngineSettings, cache: Path | None) -> Engine:
    from freehold.engines.llama_cpp import LlamaCpp

    return LlamaCpp(settings.llama_cpp, cache)


def _openvino(settings: EngineSettings, cache: Path | None) -> Engine:
    from freehold.engines.openvino.engine import OpenVino

    return OpenVino(settings.openvino, cache)


def _vllm(settings: EngineSettings, cache: Path | None) -> Engine:
    from freehold.engines.vllm.engine import Vllm

    return Vllm(settings.vllm)


def _fake(settings: EngineSettings, cache: Path | None) -> Engine:
    from freehold.engines.fake import Fake

    return Fake(settings.fake_flags)


_CREATORS: dict[str, Callable[[EngineSettings, Path | None], Engine]] = {
    "fake": _fake,
    "llama_cpp": _llama_cpp,
    "openvino": _openvino,
    "vllm": _vllm,
}


_WITH_ADAPTERS = frozenset({"fake", "llama_cpp", "openvino", "vllm"})


def with_adapters() -> list[str]:
    """The engines that answer under adapters, told without importing them."""
    return sorted(_WITH_ADAPTERS & _CREATORS.keys())


def rank_limit(settings: EngineSettings) -> RankLimit:
    """Of adapters under the engine that `settings.default` names."""
    if settings.default == "openvino":
        return RankLimit(settings.openvino.max_rank, "engines.openvino.max_rank")
    if settings.default == "vllm":
        return RankLimit(settings.vllm.max_rank, "engines.vllm.max_rank")
    return RankLimit()


def create(name: str, settings: EngineSettings, cache: Path | None = None) -> Engine:
    """`cache` is where an engine may keep what it makes of a model. Raises
    `UserError(CONFIG_INVALID)` listing the valid names."""
    creator = _CREATORS.get(name)
    if creator is None:
        raise UserError(
            Code.CONFIG_INVALID,
            f"There is no engine {name!r}: choose one of {', '.join(sorted(_CREATORS))}.",
        )
    return creator(settings, cache)
