"""What commands about adapters, routes and datasets share: long lists, and a home at rest."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from freehold.cli.options.owner import Of
from freehold.cli.reaching import reach
from freehold.config.home import Home

if TYPE_CHECKING:
    from freehold.cli.at_rest.routes import Offline

_PAGE = 1000


@contextmanager
def offline(home: Home, of: Of) -> Iterator["Offline"]:
    # As in `reach.offline`: a running gateway answers before this is imported.
    from freehold.cli.at_rest.routes import opened

    with opened(home, of) as found:
        yield found


def every_page(
    gateway: reach.RunningGateway,
    path: str,
    of: Of,
    key: str,
    cursor: str = "after",
    **narrowed: str,
) -> list[dict[str, Any]]:
    """`cursor` is the parameter that goes on behind the last one's `key`: where the newest come
    first, it is `before`."""
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {**of.named(), **narrowed, "limit": _PAGE}
    while True:
        page = gateway.call("GET", path, query=query)
        found += page["data"]
        if not page["has_more"]:
            return found
        query[cursor] = found[-1][key]


def one(gateway: reach.RunningGateway, method: str, path: str, name: str, of: Of) -> dict[str, Any]:
    found: dict[str, Any] = gateway.call(method, f"{path}/{reach.quoted(name)}", query=of.named())
    return found
