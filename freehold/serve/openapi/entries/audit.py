from freehold.serve.admin.audit import AuditQuery
from freehold.serve.openapi.codes import OWNED, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.replies.audit import AuditList

ENTRIES = [
    Entry(
        "get", "/admin/v1/audit", "list_audit_records", "administration",
        "The audit records of a tenant's environment, a chain of hashes", AuditList,
        WITH_QUERY | OWNED, query=AuditQuery,
    ),
]  # fmt: skip
