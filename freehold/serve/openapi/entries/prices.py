from freehold.serve.admin.prices import PricesQuery
from freehold.serve.openapi.codes import WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.replies.prices import PriceList

ENTRIES = [
    Entry(
        "get", "/admin/v1/prices", "list_prices", "administration",
        "What models cost, and what the machine cost beside what was billed", PriceList,
        WITH_QUERY, query=PricesQuery,
    ),
]  # fmt: skip
