"""What was used: plain sums, and single requests page by page."""

import random
from collections import Counter
from datetime import UTC, datetime

import pytest

from freehold.core.usage import Outcome, UsageRow
from freehold.store import ledger
from freehold.store.sql import SqlStore
from tests.store.making import (
    entries_of,
    reservation,
    used,
)

_DAY_US = 86_400_000_000


def test_usage_is_the_plain_sum_over_key_model_and_day(store: SqlStore) -> None:
    chance = random.Random(3)
    expected: dict[tuple[str, str, str, str | None], Counter[str]] = {}
    since_us, until_us = 10 * _DAY_US, 13 * _DAY_US
    for number in range(300):
        at_us = chance.choice(
            [chance.randrange(9 * _DAY_US, 14 * _DAY_US), since_us, since_us - 1, until_us,
             until_us - 1, 11 * _DAY_US, 11 * _DAY_US - 1]
        )  # fmt: skip
        key, alias = chance.choice(["key_1", "key_2"]), chance.choice(["m", "n"])
        under = None if alias == "m" else chance.choice(["sha256:a", "sha256:b"])
        outcome, tokens = chance.choice(list(Outcome)), chance.randrange(1000)
        if chance.random() < 0.2:  # still open
            asked = reservation(f"req_{number}", key_id=key, alias=alias, created_at_us=at_us)
            store.apply(entries_of(ledger._reserved(asked), ["m", f"req_{number}", 9, 9]))
            continue
        used(
            store, f"req_{number}", created_at_us=at_us, key_id=key, alias=alias,
            adapter_digest=under, outcome=outcome, tokens_out=tokens,
        )  # fmt: skip
        if since_us <= at_us < until_us:
            day = datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d")
            group = expected.setdefault((day, key, alias, under), Counter())
            group.update(
                requests=1, failed=outcome is not Outcome.OK, tokens_in=3, tokens_out=tokens,
                tokens_cached=1,
            )  # fmt: skip
    rows = [
        UsageRow(
            key, alias, under, day, sums["requests"], sums["failed"], sums["tokens_in"],
            sums["tokens_out"], sums["tokens_cached"], 0, sums["requests"],
        )
        for (day, key, alias, under), sums in sorted(expected.items(), key=str)
    ]  # fmt: skip
    assert len(rows) == 18
    assert store.usage("ten_a", since_us, until_us) == rows
    one = [row for row in rows if row.key_id == "key_2"]
    assert store.usage("ten_a", since_us, until_us, "key_2") == one
    assert store.usage("ten_a", since_us, until_us, "key_none") == []


def test_requests_are_listed_newest_first_page_by_page(store: SqlStore) -> None:
    for number in range(7):
        used(store, f"req_{number}")
    pages, before = [], None
    while page := store.records("ten_a", 3, before):
        pages.append([row["id"] for row in page])
        before = page[-1]["id"]
    assert pages == [["req_6", "req_5", "req_4"], ["req_3", "req_2", "req_1"], ["req_0"]]


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE requests; --", '"\\', "\u00e9\u4e2d\U0001f600", "", "\n\t", "$.x[0]"]
)
def test_any_text_is_kept_as_it_is(store: SqlStore, text: str) -> None:
    asked = reservation("req_1", alias=text, conversation_id=text, created_at_us=2**53 + 1)
    store.apply(entries_of(ledger._reserved(asked)))
    (row,) = store.records("ten_a", 10)
    assert (row["alias"], row["conversation_id"], row["created_at_us"]) == (text, text, 2**53 + 1)
