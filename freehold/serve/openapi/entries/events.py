from freehold.serve.admin.events import EventsQuery
from freehold.serve.openapi.codes import OWNED, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.replies.events import EventList

ENTRIES = [
    Entry(
        "get", "/admin/v1/events", "list_events", "administration",
        "What happened that somebody should know of, oldest first", EventList,
        WITH_QUERY | OWNED, query=EventsQuery,
    ),
]  # fmt: skip
