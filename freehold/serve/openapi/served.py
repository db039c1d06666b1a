"""The OpenAPI document, as it is served."""

import asyncio
from typing import Any

from freehold.core.binding import Principal
from freehold.serve.wire import Receive, Scope, Send, reply_json


class Document:
    """Made in a thread when somebody first asks for it: nothing else needs the shapes of all
    replies, which take a fifth of a second to make."""

    def __init__(self) -> None:
        self._content: dict[str, Any] | None = None

    async def serve(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        if self._content is None:
            self._content = await asyncio.to_thread(_made)
        await reply_json(send, self._content)


def _made() -> dict[str, Any]:
    from freehold.serve.openapi.document import build

    return build()
