from freehold.core.errors import Code
from freehold.serve.admin.lineage import LineageQuery
from freehold.serve.openapi.codes import OWNED, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.replies.lineage import Bom, Lineage

ENTRIES = [
    Entry(
        "get", "/admin/v1/lineage", "get_lineage", "administration",
        "Where the answers of an alias come from, now or at a time, or one past answer",
        Lineage, WITH_QUERY | OWNED | {Code.INVALID_VALUE}, query=LineageQuery,
    ),
    Entry(
        "get", "/admin/v1/lineage/bom", "get_lineage_bom", "administration",
        "The same as a CycloneDX ML-BOM", Bom,
        WITH_QUERY | OWNED | {Code.INVALID_VALUE}, query=LineageQuery,
    ),
]  # fmt: skip
