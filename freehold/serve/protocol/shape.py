"""How an answer is shaped for the client, whatever engine it came from."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

from freehold.core.errors import Code, UserError
from freehold.serve.protocol.meter import Meter

_Given = ParamSpec("_Given")
_Shaped = TypeVar("_Shaped")


class Shaper(Protocol):
    """One a request. Ids, times and model names in answers are the gateway's; only
    fields that OpenAI defines survive."""

    def chunk(self, chunks: list[dict[str, Any]]) -> bytes:
        """What the client gets for these engine chunks; may be empty."""
        ...

    def end(self, meter: Meter) -> bytes:
        """The end of a good stream."""
        ...

    def error(self, body: dict[str, Any]) -> bytes:
        """The end of a stream that failed: no client takes it for a whole answer."""
        ...

    def whole(self, content: dict[str, Any], meter: Meter) -> dict[str, Any]:
        """The unstreamed answer from the engine's, or from the assembled chunks."""
        ...


def usage_of(meter: Meter, shows_cached: bool) -> dict[str, Any]:
    """`cached_tokens` tells who shares a cache with whom; it is shown only where
    nobody else's prompts can be in it."""
    return {
        "prompt_tokens": meter.tokens_in,
        "completion_tokens": meter.tokens_out,
        "total_tokens": meter.tokens_in + meter.tokens_out,
        "prompt_tokens_details": {"cached_tokens": meter.tokens_cached if shows_cached else 0},
    }


def reads_engine(method: Callable[_Given, _Shaped]) -> Callable[_Given, _Shaped]:
    """For what takes an engine's answer apart: one that is built otherwise than
    OpenAI says is the engine's failure, whatever it makes Python complain about."""

    @wraps(method)
    def checked(*args: _Given.args, **kwargs: _Given.kwargs) -> _Shaped:
        try:
            return method(*args, **kwargs)
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as why:
            raise UserError(
                Code.ENGINE_FAILED, "The engine sent what is no answer: try again."
            ) from why

    return checked


def text_of(value: Any) -> str:
    """A text of an engine's; raises `TypeError` for what is neither text nor null."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError("no text")
    return value
