"""The ledger's statements. Each takes a whole batch as one JSON document, `:rows`: the driver
gives up the interpreter once, not at each row. An entry is the list that `ledger.py` wrote,
its kind first; the columns here are in the order of what follows. Only their names and the
words of a database become part of a statement."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Column, TextClause, text

from freehold.store.backend import Words
from freehold.store.tables import requests

_c = requests.c
RESERVED = (
    _c.id, _c.tenant_id, _c.environment, _c.key_id, _c.alias, _c.endpoint, _c.engine,
    _c.base_digest, _c.adapter_digest, _c.conversation_id, _c.priority, _c.stream,
    _c.created_at_us, _c.policies, _c.account, _c.price, _c.personal,
)  # fmt: skip
MARKED = (_c.id, _c.tokens_in, _c.tokens_out)
SETTLED = (
    _c.id, _c.outcome, _c.tokens_in, _c.tokens_out, _c.tokens_cached, _c.estimated, _c.ttft_us,
    _c.duration_us, _c.settled_at_us, _c.error_code, _c.cost, _c.content,
)  # fmt: skip


@cache
def reserve(words: Words) -> TextClause:
    """Of `:gateway`."""
    names = ", ".join(column.name for column in RESERVED)
    found = ", ".join(_found(words, RESERVED))
    return text(
        f"INSERT INTO requests ({names}, gateway, tokens_in, tokens_out, tokens_cached,"  # noqa: S608
        f" estimated) SELECT {found}, CAST(:gateway AS VARCHAR), 0, 0, 0, false"
        f" FROM {words.entries} WHERE true ON CONFLICT (id) DO NOTHING"
    )


@cache
def mark(words: Words) -> TextClause:
    return text(_update(words, MARKED))


@cache
def settle(words: Words) -> TextClause:
    """Returns the rows that it settled."""
    every = ", ".join(column.name for column in requests.columns)
    return text(f"{_update(words, SETTLED)} RETURNING {every}")


def _update(words: Words, columns: Sequence[Column[Any]]) -> str:
    found = _found(words, columns)
    pairs = zip(columns[1:], found[1:], strict=True)
    news = ", ".join(f"{column.name} = {value}" for column, value in pairs)
    return (
        f"UPDATE requests SET {news} FROM {words.entries}"  # noqa: S608
        f" WHERE requests.id = {found[0]} AND settled_at_us IS NULL"
    )


def _found(words: Words, columns: Sequence[Column[Any]]) -> list[str]:
    return [words.cast(f"value ->> {at}", column) for at, column in enumerate(columns, 1)]
