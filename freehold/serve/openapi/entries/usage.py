from freehold.serve.admin.usage import UsageQuery
from freehold.serve.openapi.codes import OWNED, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.replies.usage import UsageList

ENTRIES = [
    Entry(
        "get", "/admin/v1/usage", "usage", "administration",
        "Usage by key, model and day", UsageList, WITH_QUERY | OWNED,
        query=UsageQuery,
    ),
]  # fmt: skip
