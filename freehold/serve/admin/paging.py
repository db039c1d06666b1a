"""Lists that are told page by page."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import Field

from freehold.serve.owner import OwnQuery
from freehold.serve.wire import Send, reply_json

_Item = TypeVar("_Item")


class PageQuery(OwnQuery):
    """In the order of what they are called; those that come `after` that one."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: Annotated[str, Field(max_length=128)] = ""


class NewestQuery(OwnQuery):
    """The newest first; those that are older than the one `before`."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    before: Annotated[str | None, Field(max_length=64)] = None


async def reply_page(
    send: Send, found: Sequence[_Item], limit: int, shown: Callable[[_Item], dict[str, Any]]
) -> None:
    """`found` has one more than the page, where more follows."""
    data = [shown(each) for each in found[:limit]]
    await reply_json(send, {"data": data, "has_more": len(found) > limit})
