from freehold.serve.openapi.codes import OWNED, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.owner import OwnQuery
from freehold.serve.replies.content import KeptContent, RemovedContent

ENTRIES = [
    Entry(
        "get", "/admin/v1/audit/content/{request}", "read_content", "administration",
        "What was said in a request, where the tenant has it kept; that it was read is recorded",
        KeptContent, WITH_QUERY | OWNED, query=OwnQuery,
    ),
    Entry(
        "delete", "/admin/v1/audit/content/{request}", "remove_content", "administration",
        "Remove what is kept of a request; its audit record stays", RemovedContent,
        WITH_QUERY | OWNED, query=OwnQuery,
    ),
]  # fmt: skip
