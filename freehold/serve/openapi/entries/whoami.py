from freehold.serve.openapi.entry import Entry
from freehold.serve.replies.whoami import WhoAmI

ENTRIES = [
    Entry(
        "get", "/admin/v1/whoami", "whoami", "administration",
        "Who asks, and what it may", WhoAmI,
    ),
]  # fmt: skip
