from freehold.serve.openapi.codes import OWNED, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.owner import TenantQuery
from freehold.serve.replies.subjects import ForgottenSubject

ENTRIES = [
    Entry(
        "delete", "/admin/v1/subjects/{subject}", "forget_subject", "administration",
        "Forget a key, a person or an end user: personal fields of audit records about them "
        "cannot be read any more", ForgottenSubject, WITH_QUERY | OWNED,
        query=TenantQuery,
    ),
]  # fmt: skip
