"""What a request may use at most, and whether the limits allow it."""

import asyncio

from freehold.core.binding import Binding
from freehold.core.engine import EMBEDDINGS, EngineCall
from freehold.core.errors import UserError
from freehold.core.limit import Use
from freehold.secure.quota import Hold
from freehold.serve.gateway import Gateway
from freehold.serve.protocol.meter import BYTES_A_TOKEN

# A chat template adds words of its own to what was sent.
_TEMPLATE_TOKENS = 64
# Where neither the request nor the model says how long an answer can get.
_LONGEST_ANSWER = 32_768
_COUNT_S = 1.0


async def hold(gateway: Gateway, binding: Binding, call: EngineCall, n: int, size: int) -> Hold:
    """`size` is that of the body in bytes: no token is shorter than one, so that it holds no
    more tokens than that. Raises what `Limits.hold` raises."""
    if not gateway.limits.fitting(binding.principal):
        return gateway.limits.nothing(binding.request_id)
    context = gateway.pools[binding.route.pool].capabilities.context_length
    most_in = size + _TEMPLATE_TOKENS
    if context is not None:
        most_in = min(most_in, context)
    asked = _asked(call)
    most_out = 0 if call.endpoint == EMBEDDINGS else asked or context or _LONGEST_ANSWER
    if context is not None:
        most_out = min(most_out, context)

    async def count() -> Use | None:
        exact = await _counted(gateway, binding, call)
        return None if exact is None else _use(binding, n, exact, most_out)

    likely = _use(binding, n, size // BYTES_A_TOKEN, min(asked or 0, most_out))
    most = _use(binding, n, most_in, most_out)
    return await gateway.limits.hold(binding.request_id, binding.principal, most, likely, count)


def _use(binding: Binding, n: int, tokens_in: int, tokens_out: int) -> Use:
    """`n` answers are computed each by itself, prompt and all."""
    cost = binding.price.most(n * tokens_in, n * tokens_out) if binding.price else None
    return Use(1, n * (tokens_in + tokens_out), cost)


def _asked(call: EngineCall) -> int | None:
    asked = call.body.get("max_completion_tokens") or call.body.get("max_tokens")
    return asked if isinstance(asked, int) else None


async def _counted(gateway: Gateway, binding: Binding, call: EngineCall) -> int | None:
    """The prompt's tokens, where the engine can say so at once."""
    pool = gateway.pools[binding.route.pool]
    try:
        async with (
            asyncio.timeout(_COUNT_S),
            pool.lease(binding.route.tenant_id, binding.priority) as lease,
        ):
            return await lease.client.count_prompt_tokens(call)
    except (TimeoutError, UserError):
        return None
