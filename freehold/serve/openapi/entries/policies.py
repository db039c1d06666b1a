from freehold.core.errors import Code
from freehold.serve.admin.policies import NewPolicy, PoliciesQuery
from freehold.serve.explain import Question
from freehold.serve.openapi.codes import OWNED, WITH_BODY, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.replies.policies import Explanation, Policy, PolicyList, RemovedPolicy

ENTRIES = [
    Entry(
        "get", "/admin/v1/policies", "list_policies", "administration",
        "The policies of a tenant, or of the installation", PolicyList,
        WITH_QUERY | OWNED, query=PoliciesQuery,
    ),
    Entry(
        "post", "/admin/v1/policies", "write_policy", "administration",
        "Write a policy in Cedar, in place of the one of the same name", Policy,
        WITH_BODY | OWNED | {Code.POLICY_INVALID}, NewPolicy, status=201,
    ),
    Entry(
        "post", "/admin/v1/policies/explain", "explain", "administration",
        "Why a key or a person may do something, or may not", Explanation,
        WITH_BODY | OWNED, Question,
    ),
    Entry(
        "delete", "/admin/v1/policies/{name}", "remove_policy", "administration",
        "Remove a policy", RemovedPolicy, WITH_QUERY | OWNED, query=PoliciesQuery,
    ),
]  # fmt: skip
