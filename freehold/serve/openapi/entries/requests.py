from freehold.serve.admin.requests import RequestsQuery
from freehold.serve.openapi.codes import OWNED, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.replies.requests import RequestList

ENTRIES = [
    Entry(
        "get", "/admin/v1/requests", "requests", "administration",
        "Single requests, newest first", RequestList, WITH_QUERY | OWNED,
        query=RequestsQuery,
    ),
]  # fmt: skip
