from freehold.serve.admin.limits import NewLimit
from freehold.serve.openapi.codes import OWNED, WITH_BODY, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.owner import OwnQuery
from freehold.serve.replies.limits import Limit, LimitList, RemovedLimit

ENTRIES = [
    Entry(
        "get", "/admin/v1/limits", "list_limits", "administration",
        "The limits of a tenant's environment, and how much of each is used", LimitList,
        WITH_QUERY | OWNED, query=OwnQuery,
    ),
    Entry(
        "post", "/admin/v1/limits", "set_limit", "administration",
        "Set a budget or a rate, in place of the one for the same", Limit,
        WITH_BODY | OWNED, NewLimit, status=201,
    ),
    Entry(
        "delete", "/admin/v1/limits/{limit_id}", "remove_limit", "administration",
        "Remove a limit", RemovedLimit, WITH_QUERY | OWNED, query=OwnQuery,
    ),
]  # fmt: skip
