from freehold.serve.admin.gates import GatesQuery
from freehold.serve.openapi.codes import OWNED, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.owner import OwnQuery
from freehold.serve.replies.gates import Gate, GateList

ENTRIES = [
    Entry(
        "get", "/admin/v1/gates", "list_gates", "administration",
        "What evaluations of an environment decided, newest first", GateList,
        WITH_QUERY | OWNED, query=GatesQuery,
    ),
    Entry(
        "get", "/admin/v1/gates/{gate}", "get_gate", "administration",
        "A gate, verdict by verdict", Gate, WITH_QUERY | OWNED, query=OwnQuery,
    ),
]  # fmt: skip
