from freehold.serve.openapi.entry import Entry
from freehold.serve.replies.status import Status

ENTRIES = [
    Entry(
        "get", "/admin/v1/status", "status", "administration",
        "Replicas, queues, memory", Status,
    ),
]  # fmt: skip
