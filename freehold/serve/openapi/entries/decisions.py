from freehold.core.errors import Code
from freehold.serve.admin.decisions import CheckQuery, DecideRequest, FitRequest, NewDecision
from freehold.serve.openapi.codes import OWNED, PLANNING, WITH_BODY, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.owner import TenantQuery
from freehold.serve.replies.decisions import (
    Decision,
    DecisionCheck,
    DecisionDeployment,
    DecisionList,
    Fits,
    Plan,
)

ENTRIES = [
    Entry(
        "post", "/admin/v1/fit", "fit", "administration",
        "Whether a model fits, with how much context, and how fast it is", Fits,
        WITH_BODY | {Code.FILE_INVALID, Code.MODEL_NOT_FOUND}, FitRequest,
    ),
    Entry(
        "post", "/admin/v1/decide", "decide", "administration",
        "Rank every way to serve a workload, with what it costs", Plan, PLANNING,
        DecideRequest,
    ),
    Entry(
        "get", "/admin/v1/decisions", "list_decisions", "administration",
        "The decisions that were recorded, newest first", DecisionList,
        WITH_QUERY | OWNED, query=TenantQuery,
    ),
    Entry(
        "post", "/admin/v1/decisions", "record_decision", "administration",
        "Plan, and keep the decision for one of the options", Decision,
        PLANNING | OWNED | {Code.CONFLICT}, NewDecision, status=201,
    ),
    Entry(
        "get", "/admin/v1/decisions/{decision}", "get_decision", "administration",
        "A decision as it was made", Decision, WITH_QUERY | OWNED,
        query=TenantQuery,
    ),
    Entry(
        "get", "/admin/v1/decisions/{decision}/deployment", "get_deployment", "administration",
        "A decision as settings for `freehold up -f`", DecisionDeployment,
        WITH_QUERY | OWNED | {Code.FILE_INVALID}, query=TenantQuery,
    ),
    Entry(
        "post", "/admin/v1/decisions/{decision}/check", "check_decision", "administration",
        "Hold a decision against what was measured since, and what would be decided today",
        DecisionCheck,
        WITH_QUERY | OWNED | {Code.FILE_INVALID, Code.OVERLOADED}, query=CheckQuery,
    ),
]  # fmt: skip
