"""The gateway's client of an engine process that answers under adapters.

Beside OpenAI's fields each call carries `adapter` (a digest or null), `cache_salt`,
`tenant` and `priority`, and each chunk says in `adapter` what it was made under.
`POST /v1/adapters` with `{"add": [{"digest", "config", "weights"}], "drop": [digest]}` answers with
`{"refused": {digest: reason}}`; a call under an adapter that the process was not told
of gets 404 with the code `unknown_adapter`, never an answer of the bare base.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from freehold.core.engine import AdapterFiles, EngineCall
from freehold.core.errors import Code, UserError
from freehold.engines.openai_http import OpenAIHttp, failed

UNKNOWN_ADAPTER = "unknown_adapter"
_MAX_REASON = 200


class AdapterHttp(OpenAIHttp):
    def own_fields(self, call: EngineCall) -> Mapping[str, Any]:
        return {
            **super().own_fields(call),
            "adapter": call.adapter,
            "cache_salt": call.cache_salt,
            "tenant": call.tenant,
            "priority": call.priority,
        }

    async def change_adapters(
        self, add: Sequence[AdapterFiles], drop: Collection[str]
    ) -> Mapping[str, str]:
        return refused(await self.post_json("adapters", told(add, drop)))

    def bad_request(self, status: int, error: dict[str, Any]) -> UserError:
        if error.get("code") == UNKNOWN_ADAPTER:
            return not_there()
        return super().bad_request(status, error)


def told(add: Sequence[AdapterFiles], drop: Collection[str]) -> dict[str, Any]:
    """The body that tells a process of adapters."""
    return {
        "add": [
            {"digest": each.digest, "config": str(each.config), "weights": str(each.weights)}
            for each in add
        ],
        "drop": list(drop),
    }


def refused(answer: Mapping[str, Any]) -> Mapping[str, str]:
    """Which adapters it did not take, and why."""
    found = answer.get("refused")
    if not isinstance(found, dict):
        raise failed("The engine", "did not say which adapters it took")
    return {digest: _plain(reason) for digest, reason in found.items()}


def not_there() -> UserError:
    return UserError(
        Code.ADAPTER_UNAVAILABLE,
        "The engine does not have this model's adapter now: try again.",
        retry_after_s=2,
    )


def _plain(reason: Any) -> str:
    """One short line of our own worker's, which read a file that is not trusted."""
    text = reason if isinstance(reason, str) else "it gave no reason"
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_REASON]).strip(" .")
