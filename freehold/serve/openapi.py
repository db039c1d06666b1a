"""The OpenAPI document, made from the models that parse the requests, the types of
the answers, and the table of errors."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter

import freehold
from freehold.core.errors import Code
from freehold.serve import bodies, decision_replies, promotion_replies, replies
from freehold.serve.admin import AuditQuery, RecordsQuery, UsageQuery
from freehold.serve.admin_datasets import FeedbackDataset, NewDataset
from freehold.serve.admin_decisions import (
    CheckQuery,
    DecideRequest,
    FitRequest,
    NewDecision,
)
from freehold.serve.admin_evaluations import GatesQuery, NewEvaluation
from freehold.serve.admin_events import EventsQuery
from freehold.serve.admin_jobs import JobsOfKindQuery, LogQuery, NewJob
from freehold.serve.admin_keys import KeyChange, KeyRotation, NewKey
from freehold.serve.admin_limits import NewLimit
from freehold.serve.admin_lineage import LineageQuery
from freehold.serve.admin_policies import NewPolicy, PoliciesQuery
from freehold.serve.admin_prices import PricesQuery
from freehold.serve.admin_promotions import PromotionsQuery
from freehold.serve.admin_roles import RoleOfGroup
from freehold.serve.admin_routing import NewAdapter, PageQuery
from freehold.serve.admin_sessions import CutOffQuery, SessionsQuery, TenantQuery
from freehold.serve.admin_subjects import SubjectQuery
from freehold.serve.admin_tenants import NewTenant, RemovalQuery, TenantChange
from freehold.serve.errors import HTTP
from freehold.serve.explain import Question
from freehold.serve.feedback import NewFeedback
from freehold.serve.owner import OwnQuery
from freehold.serve.promotions import NewPromotion, NewRollback
from freehold.serve.routes import NewRoute

Schema = dict[str, Any]

_GUARDED = frozenset(
    {
        Code.HOST_NOT_ALLOWED,
        Code.MISSING_API_KEY,
        Code.INVALID_API_KEY,
        Code.EXPIRED_API_KEY,
        Code.INVALID_TOKEN,
        Code.EXPIRED_TOKEN,
        Code.INVALID_SESSION,
        Code.CROSS_SITE,
        Code.PROVIDER_UNREACHABLE,
        Code.FORBIDDEN,
        Code.ADDRESS_NOT_ALLOWED,
        Code.CERTIFICATE_NOT_ALLOWED,
        Code.ENVIRONMENT_NOT_SERVED,
        Code.KEY_SUSPENDED,
        Code.TENANT_DISABLED,
        Code.TOO_MANY_ATTEMPTS,
        Code.INVALID_VALUE,
        Code.STORAGE_UNAVAILABLE,
        Code.AUDIT_UNAVAILABLE,
        Code.INTERNAL,
    }
)
_WITH_QUERY = frozenset({Code.UNKNOWN_PARAMETER})
_OWNED = frozenset({Code.NOT_FOUND})  # what belongs to a tenant, which may not be there
_WITH_BODY = frozenset(
    {
        Code.INVALID_JSON,
        Code.UNKNOWN_PARAMETER,
        Code.REQUEST_TOO_LARGE,
        Code.CLIENT_TOO_SLOW,
    }
)
_PLANNING = _WITH_BODY | {Code.FILE_INVALID, Code.MODEL_NOT_FOUND, Code.OVERLOADED}
_ABOUT_WEIGHTS = frozenset(
    {Code.MODEL_NOT_FOUND, Code.NOT_FOUND, Code.FILE_REFUSED, Code.ADAPTER_MISMATCH}
)
_TUNING = _WITH_BODY | {
    Code.NOT_FOUND,
    Code.MODEL_NOT_FOUND,
    Code.CONFLICT,
    Code.FILE_INVALID,
    Code.LIMIT_REACHED,
    Code.BUDGET_EXCEEDED,
    Code.PRICE_UNKNOWN,
    Code.DISK_FULL,
}
_PROMOTING = (
    _WITH_BODY
    | _ABOUT_WEIGHTS
    | {
        Code.CONFLICT,
        Code.GATE_NOT_PASSED,
        Code.LICENCE_NOT_ACCEPTED,
        Code.UNSUPPORTED_PARAMETER,
    }
)
_INFERENCE = _WITH_BODY | {
    Code.UNSUPPORTED_PARAMETER,
    Code.UNSUPPORTED_ENDPOINT,
    Code.CONTEXT_LENGTH_EXCEEDED,
    Code.PROMPT_QUARANTINED,
    Code.MODEL_NOT_FOUND,
    Code.IDEMPOTENCY_IN_FLIGHT,
    Code.IDEMPOTENCY_MISMATCH,
    Code.OVERLOADED,
    Code.SHUTTING_DOWN,
    Code.ENGINE_UNAVAILABLE,
    Code.ENGINE_FAILED,
    Code.ENGINE_TIMEOUT,
    Code.ADAPTER_UNAVAILABLE,
    Code.ACCESS_ENDED,
    Code.RATE_LIMITED,
    Code.BUDGET_EXCEEDED,
    Code.PRICE_UNKNOWN,
    Code.UPSTREAM_REFUSED,
    Code.UPSTREAM_RATE_LIMITED,
    Code.IDENTITY_MISMATCH,
}
_EXPLAINED = {
    400: "The request cannot be served as it is",
    401: "No key, or one that is not valid",
    402: "A budget is used up: the message says which, and when it frees",
    403: "The key may not do this",
    404: "There is no such thing, or not for this key",
    408: "The request did not arrive in time",
    409: "It conflicts with what is there",
    413: "The body is too large",
    421: "This host name is not served here",
    422: "The Idempotency-Key was used with another body",
    429: "Too fast, too many at once, or too many wrong keys: `Retry-After` says how long",
    500: "A fault of the gateway",
    502: "The engine or the upstream failed",
    503: "Not now: `Retry-After` says when to try again",
    504: "The engine was silent for too long",
    507: "The disk is full",
}


@dataclass(frozen=True, slots=True)
class _Entry:
    """One operation as the document shows it."""

    method: str
    path: str
    name: str
    tag: str
    summary: str
    answer: type[BaseModel] | None
    codes: frozenset[Code] = frozenset()
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    streams: type[BaseModel] | None = None  # what each event of a stream holds
    status: int = 200


_INFER = [
    _Entry(
        "post", "/v1/chat/completions", "chat_completions", "inference",
        "Answer a conversation", replies.ChatCompletion, _INFERENCE,
        bodies.SHAPES["chat/completions"],
        streams=replies.ChatCompletionChunk,
    ),
    _Entry(
        "post", "/v1/completions", "completions", "inference",
        "Continue a text", replies.Completion, _INFERENCE, bodies.SHAPES["completions"],
        streams=replies.Completion,
    ),
    _Entry(
        "post", "/v1/embeddings", "embeddings", "inference",
        "Embed texts", replies.EmbeddingList, _INFERENCE, bodies.SHAPES["embeddings"],
    ),
    _Entry(
        "post", "/v1/responses", "responses", "inference",
        "Answer, in the shape of the Responses API", replies.Response, _INFERENCE,
        bodies.SHAPES["responses"],
        streams=replies.ResponseEvent,
    ),
]  # fmt: skip
_OTHERS = [
    _Entry(
        "post", "/v1/feedback", "give_feedback", "feedback",
        "Say what an answer to oneself was worth; what the same person says last counts",
        replies.GivenFeedback, _WITH_BODY | _OWNED, NewFeedback,
    ),
    _Entry(
        "get", "/v1/models", "list_models", "models",
        "The models this key may use", replies.ModelList,
    ),
    _Entry(
        "get", "/v1/models/{alias}", "get_model", "models",
        "One model", replies.Model, frozenset({Code.MODEL_NOT_FOUND}),
    ),
    _Entry("get", "/openapi.json", "openapi", "models", "This document", None),
    _Entry(
        "get", "/admin/v1/status", "status", "administration",
        "Replicas, queues, memory", replies.Status,
    ),
    _Entry(
        "get", "/admin/v1/models", "model_cards", "administration",
        "The cards of served models", replies.CardList,
    ),
    _Entry(
        "get", "/admin/v1/tenants", "list_tenants", "administration",
        "All tenants", replies.TenantList,
    ),
    _Entry(
        "post", "/admin/v1/tenants", "create_tenant", "administration",
        "Make a tenant", replies.Tenant, _WITH_BODY | {Code.CONFLICT}, NewTenant, status=201,
    ),
    _Entry(
        "get", "/admin/v1/tenants/{tenant}", "get_tenant", "administration",
        "One tenant, by name or id, and what it has", replies.TenantAndHoldings, _OWNED,
    ),
    _Entry(
        "patch", "/admin/v1/tenants/{tenant}", "change_tenant", "administration",
        "Isolate a tenant otherwise, choose for its keys, or disable it: its requests are cut",
        replies.Tenant,
        _WITH_BODY | _OWNED | {Code.CONFLICT}, TenantChange,
    ),
    _Entry(
        "delete", "/admin/v1/tenants/{tenant}", "remove_tenant", "administration",
        "Remove a tenant and what it has; what it used stays in the ledger",
        replies.TenantAndHoldings, _WITH_QUERY | _OWNED | {Code.CONFLICT}, query=RemovalQuery,
    ),
    _Entry(
        "get", "/admin/v1/keys", "list_keys", "administration",
        "The keys of a tenant's environment, never their secrets", replies.KeyList,
        _WITH_QUERY | _OWNED, query=OwnQuery,
    ),
    _Entry(
        "post", "/admin/v1/keys", "create_key", "administration",
        "Make a key that may no more than the maker's", replies.CreatedKey,
        _WITH_BODY | _OWNED | {Code.CONFLICT}, NewKey, status=201,
    ),
    _Entry(
        "patch", "/admin/v1/keys/{key_id}", "change_key", "administration",
        "Choose what follows when a key is used otherwise than before; no key does so for itself",
        replies.Key, _WITH_BODY | _OWNED, KeyChange,
    ),
    _Entry(
        "delete", "/admin/v1/keys/{key_id}", "revoke_key", "administration",
        "Revoke a key; doing it again changes nothing", replies.Key, _WITH_QUERY | _OWNED,
        query=OwnQuery,
    ),
    _Entry(
        "post", "/admin/v1/keys/{key_id}/rotate", "rotate_key", "administration",
        "Replace a key, which goes on for a while; the same call gets the same new key",
        replies.CreatedKey, _WITH_BODY | _OWNED | {Code.CONFLICT}, KeyRotation,
    ),
    _Entry(
        "post", "/admin/v1/keys/{key_id}/confirm", "confirm_key", "administration",
        "Say that the use of a key is in order, whatever is unusual in it; one that was "
        "suspended or stepped down for it may again what it might", replies.Key,
        _WITH_QUERY | _OWNED, query=OwnQuery,
    ),
    _Entry(
        "get", "/admin/v1/adapters", "list_adapters", "administration",
        "The adapters of this tenant and environment, by name", replies.AdapterList,
        _WITH_QUERY | _OWNED, query=PageQuery,
    ),
    _Entry(
        "post", "/admin/v1/adapters", "add_adapter", "administration",
        "Take in an adapter that lies in the home's upload folder; the same again changes "
        "nothing", replies.Adapter,
        _WITH_BODY | _ABOUT_WEIGHTS | {Code.CONFLICT, Code.DISK_FULL, Code.FILE_INVALID},
        NewAdapter, status=201,
    ),
    _Entry(
        "get", "/admin/v1/adapters/{adapter}", "get_adapter", "administration",
        "One adapter, by name or digest", replies.Adapter,
        _WITH_QUERY | {Code.NOT_FOUND, Code.CONFLICT}, query=OwnQuery,
    ),
    _Entry(
        "delete", "/admin/v1/adapters/{adapter}", "remove_adapter", "administration",
        "Remove an adapter that no route names", replies.Adapter,
        _WITH_QUERY | {Code.NOT_FOUND, Code.CONFLICT}, query=OwnQuery,
    ),
    _Entry(
        "get", "/admin/v1/adapters/{adapter}/signatures", "verify_adapter", "administration",
        "Read an adapter's files again, and check its signatures over them", replies.Verified,
        _WITH_QUERY | {Code.NOT_FOUND, Code.CONFLICT}, query=OwnQuery,
    ),
    _Entry(
        "post", "/admin/v1/adapters/{adapter}/signatures", "sign_adapter", "administration",
        "Sign an adapter with the key of this installation", replies.Verified,
        _WITH_QUERY | {Code.NOT_FOUND, Code.CONFLICT}, query=OwnQuery, status=201,
    ),
    _Entry(
        "get", "/admin/v1/signing-keys", "list_signing_keys", "administration",
        "The keys whose signatures on adapters count", replies.SigningKeyList,
    ),
    _Entry(
        "post", "/admin/v1/signing-keys", "rotate_signing_key", "administration",
        "Have another key sign from now on; what the ones before signed stays valid",
        replies.SigningKey, status=201,
    ),
    _Entry(
        "get", "/admin/v1/lineage", "get_lineage", "administration",
        "Where the answers of an alias come from, now or at a time, or one past answer",
        replies.Lineage, _WITH_QUERY | _OWNED | {Code.INVALID_VALUE}, query=LineageQuery,
    ),
    _Entry(
        "get", "/admin/v1/lineage/bom", "get_lineage_bom", "administration",
        "The same as a CycloneDX ML-BOM", replies.Bom,
        _WITH_QUERY | _OWNED | {Code.INVALID_VALUE}, query=LineageQuery,
    ),
    _Entry(
        "get", "/admin/v1/datasets", "list_datasets", "administration",
        "The datasets of this tenant and environment, the oldest first", replies.DatasetList,
        _WITH_QUERY | _OWNED, query=PageQuery,
    ),
    _Entry(
        "post", "/admin/v1/datasets", "add_dataset", "administration",
        "Take in a dataset that lies in the home's upload folder; the same again changes "
        "nothing", replies.Dataset,
        _WITH_BODY | {
            Code.NOT_FOUND, Code.CONFLICT, Code.DISK_FULL, Code.FILE_INVALID, Code.FILE_REFUSED,
        },
        NewDataset, status=201,
    ),
    _Entry(
        "post", "/admin/v1/datasets/from-feedback", "dataset_from_feedback", "administration",
        "Make a dataset of what people said of answers, where what was said is kept",
        replies.DatasetAndReport,
        _WITH_BODY | {
            Code.NOT_FOUND, Code.CONFLICT, Code.DISK_FULL, Code.FILE_INVALID, Code.FILE_REFUSED,
            Code.OVERLOADED,
        },
        FeedbackDataset, status=201,
    ),
    _Entry(
        "get", "/admin/v1/datasets/{dataset}", "get_dataset", "administration",
        "One dataset and its report, by name (the newest version), name@version, id or digest",
        replies.DatasetAndReport, _WITH_QUERY | _OWNED, query=OwnQuery,
    ),
    _Entry(
        "delete", "/admin/v1/datasets/{dataset}", "remove_dataset", "administration",
        "Remove one version of a dataset", replies.Dataset, _WITH_QUERY | _OWNED, query=OwnQuery,
    ),
    _Entry(
        "get", "/admin/v1/routes", "list_routes", "administration",
        "Where the aliases of this tenant and environment lead", replies.RouteList,
        _WITH_QUERY | _OWNED, query=PageQuery,
    ),
    _Entry(
        "post", "/admin/v1/routes", "set_route", "administration",
        "Let an alias lead to a base or an adapter of it; answers when new requests go there",
        replies.Route,
        _WITH_BODY | _ABOUT_WEIGHTS | {
            Code.CONFLICT, Code.UNSUPPORTED_PARAMETER, Code.ENGINE_UNAVAILABLE,
            Code.GATE_NOT_PASSED, Code.LICENCE_NOT_ACCEPTED,
            Code.ENGINE_FAILED, Code.ENGINE_TIMEOUT, Code.OVERLOADED,
        },
        NewRoute,
    ),
    _Entry(
        "get", "/admin/v1/routes/{alias}", "get_route", "administration",
        "One route", replies.Route, _WITH_QUERY | {Code.NOT_FOUND}, query=OwnQuery,
    ),
    _Entry(
        "delete", "/admin/v1/routes/{alias}", "remove_route", "administration",
        "Remove a route that was set; one that hides behind it shows again", replies.Route,
        _WITH_QUERY | {Code.NOT_FOUND, Code.CONFLICT}, query=OwnQuery,
    ),
    _Entry(
        "get", "/admin/v1/whoami", "whoami", "administration",
        "Who asks, and what it may", replies.WhoAmI,
    ),
    _Entry(
        "get", "/admin/v1/sessions", "list_sessions", "administration",
        "Who of a tenant is logged in", replies.SessionList, _WITH_QUERY | _OWNED,
        query=SessionsQuery,
    ),
    _Entry(
        "post", "/admin/v1/sessions", "open_session", "administration",
        "Exchange the ID token that is sent as the key for a session, once", replies.NewSession,
        frozenset({Code.CONFLICT}), status=201,
    ),
    _Entry(
        "delete", "/admin/v1/sessions", "cut_off", "administration",
        "End the sessions of a person or of all, and refuse the tokens that they have",
        replies.CutOff, _WITH_QUERY | _OWNED, query=CutOffQuery,
    ),
    _Entry(
        "delete", "/admin/v1/sessions/current", "close_session", "administration",
        "End the session that is sent as the key", replies.Session,
    ),
    _Entry(
        "delete", "/admin/v1/sessions/{session_id}", "end_session", "administration",
        "End a session; doing it again changes nothing", replies.Session, _WITH_QUERY | _OWNED,
        query=TenantQuery,
    ),
    _Entry(
        "get", "/admin/v1/roles", "list_roles", "administration",
        "What groups of identity providers were granted here, beside what the settings give",
        replies.RoleList, _WITH_QUERY | _OWNED, query=OwnQuery,
    ),
    _Entry(
        "post", "/admin/v1/roles", "grant_role", "administration",
        "Give a group a role that is no more than the grantor has", replies.GrantedRole,
        _WITH_BODY | _OWNED, RoleOfGroup, status=201,
    ),
    _Entry(
        "delete", "/admin/v1/roles", "revoke_role", "administration",
        "Take a role from a group; requests that it carried are cut", replies.GrantedRole,
        _WITH_QUERY | _OWNED, query=RoleOfGroup,
    ),
    _Entry(
        "get", "/admin/v1/policies", "list_policies", "administration",
        "The policies of a tenant, or of the installation", replies.PolicyList,
        _WITH_QUERY | _OWNED, query=PoliciesQuery,
    ),
    _Entry(
        "post", "/admin/v1/policies", "write_policy", "administration",
        "Write a policy in Cedar, in place of the one of the same name", replies.Policy,
        _WITH_BODY | _OWNED | {Code.POLICY_INVALID}, NewPolicy, status=201,
    ),
    _Entry(
        "post", "/admin/v1/policies/explain", "explain", "administration",
        "Why a key or a person may do something, or may not", replies.Explanation,
        _WITH_BODY | _OWNED, Question,
    ),
    _Entry(
        "delete", "/admin/v1/policies/{name}", "remove_policy", "administration",
        "Remove a policy", replies.RemovedPolicy, _WITH_QUERY | _OWNED, query=PoliciesQuery,
    ),
    _Entry(
        "get", "/admin/v1/limits", "list_limits", "administration",
        "The limits of a tenant's environment, and how much of each is used", replies.LimitList,
        _WITH_QUERY | _OWNED, query=OwnQuery,
    ),
    _Entry(
        "post", "/admin/v1/limits", "set_limit", "administration",
        "Set a budget or a rate, in place of the one for the same", replies.Limit,
        _WITH_BODY | _OWNED, NewLimit, status=201,
    ),
    _Entry(
        "delete", "/admin/v1/limits/{limit_id}", "remove_limit", "administration",
        "Remove a limit", replies.RemovedLimit, _WITH_QUERY | _OWNED, query=OwnQuery,
    ),
    _Entry(
        "get", "/admin/v1/prices", "list_prices", "administration",
        "What models cost, and what the machine cost beside what was billed", replies.PriceList,
        _WITH_QUERY, query=PricesQuery,
    ),
    _Entry(
        "delete", "/admin/v1/subjects/{subject}", "forget_subject", "administration",
        "Forget a key, a person or an end user: personal fields of audit records about them "
        "cannot be read any more", replies.ForgottenSubject, _WITH_QUERY | _OWNED,
        query=SubjectQuery,
    ),
    _Entry(
        "get", "/admin/v1/usage", "usage", "administration",
        "Usage by key, model and day", replies.UsageList, _WITH_QUERY | _OWNED,
        query=UsageQuery,
    ),
    _Entry(
        "get", "/admin/v1/audit", "list_audit_records", "administration",
        "The audit records of a tenant's environment, a chain of hashes", replies.AuditList,
        _WITH_QUERY | _OWNED, query=AuditQuery,
    ),
    _Entry(
        "get", "/admin/v1/audit/content/{request}", "read_content", "administration",
        "What was said in a request, where the tenant has it kept; that it was read is recorded",
        replies.KeptContent, _WITH_QUERY | _OWNED, query=OwnQuery,
    ),
    _Entry(
        "delete", "/admin/v1/audit/content/{request}", "remove_content", "administration",
        "Remove what is kept of a request; its audit record stays", replies.RemovedContent,
        _WITH_QUERY | _OWNED, query=OwnQuery,
    ),
    _Entry(
        "get", "/admin/v1/requests", "requests", "administration",
        "Single requests, newest first", replies.RequestList, _WITH_QUERY | _OWNED,
        query=RecordsQuery,
    ),
    _Entry(
        "get", "/admin/v1/events", "list_events", "administration",
        "What happened that somebody should know of, oldest first", replies.EventList,
        _WITH_QUERY | _OWNED, query=EventsQuery,
    ),
    _Entry(
        "get", "/admin/v1/backups", "list_backups", "administration",
        "The backups in the folder of the settings, oldest first", replies.BackupList,
    ),
    _Entry(
        "post", "/admin/v1/backups", "make_backup", "administration",
        "Back all of the installation up, locked for the recipient of the settings",
        replies.MadeBackup, frozenset({Code.CONFLICT, Code.DISK_FULL}), status=201,
    ),
    _Entry(
        "post", "/admin/v1/fit", "fit", "administration",
        "Whether a model fits, with how much context, and how fast it is", decision_replies.Fits,
        _WITH_BODY | {Code.FILE_INVALID, Code.MODEL_NOT_FOUND}, FitRequest,
    ),
    _Entry(
        "post", "/admin/v1/decide", "decide", "administration",
        "Rank every way to serve a workload, with what it costs", decision_replies.Plan, _PLANNING,
        DecideRequest,
    ),
    _Entry(
        "get", "/admin/v1/decisions", "list_decisions", "administration",
        "The decisions that were recorded, newest first", decision_replies.DecisionList,
        _WITH_QUERY | _OWNED, query=TenantQuery,
    ),
    _Entry(
        "post", "/admin/v1/decisions", "record_decision", "administration",
        "Plan, and keep the decision for one of the options", decision_replies.Decision,
        _PLANNING | _OWNED | {Code.CONFLICT}, NewDecision, status=201,
    ),
    _Entry(
        "get", "/admin/v1/decisions/{decision}", "get_decision", "administration",
        "A decision as it was made", decision_replies.Decision, _WITH_QUERY | _OWNED,
        query=TenantQuery,
    ),
    _Entry(
        "get", "/admin/v1/decisions/{decision}/deployment", "get_deployment", "administration",
        "A decision as settings for `freehold up -f`", decision_replies.DecisionDeployment,
        _WITH_QUERY | _OWNED | {Code.FILE_INVALID}, query=TenantQuery,
    ),
    _Entry(
        "post", "/admin/v1/decisions/{decision}/check", "check_decision", "administration",
        "Hold a decision against what was measured since, and what would be decided today",
        decision_replies.DecisionCheck,
        _WITH_QUERY | _OWNED | {Code.FILE_INVALID, Code.OVERLOADED}, query=CheckQuery,
    ),
    _Entry(
        "get", "/admin/v1/jobs", "list_jobs", "administration",
        "Work beside the gateway, newest first", replies.JobList, _WITH_QUERY | _OWNED,
        query=JobsOfKindQuery,
    ),
    _Entry(
        "post", "/admin/v1/jobs", "start_job", "administration",
        "Train an adapter beside the gateway", replies.Job, _TUNING, NewJob, status=201,
    ),
    _Entry(
        "post", "/admin/v1/jobs/estimate", "estimate_job", "administration",
        "What training an adapter would take; nothing is begun", replies.JobEstimate, _TUNING,
        NewJob,
    ),
    _Entry(
        "get", "/admin/v1/jobs/{job}", "get_job", "administration",
        "A job: how far it is, or what came of it", replies.Job, _WITH_QUERY | _OWNED,
        query=OwnQuery,
    ),
    _Entry(
        "get", "/admin/v1/jobs/{job}/log", "job_log", "administration",
        "The last lines of what its process said", replies.JobLog, _WITH_QUERY | _OWNED,
        query=LogQuery,
    ),
    _Entry(
        "post", "/admin/v1/jobs/{job}/cancel", "cancel_job", "administration",
        "Let a job end at its next checkpoint; one that has ended stays as it is", replies.Job,
        _WITH_QUERY | _OWNED, query=OwnQuery,
    ),
    _Entry(
        "post", "/admin/v1/jobs/{job}/resume", "resume_job", "administration",
        "Let a job that failed or was cancelled go on from its last checkpoint", replies.Job,
        _WITH_QUERY | _OWNED | {Code.CONFLICT}, query=OwnQuery,
    ),
    _Entry(
        "get", "/admin/v1/promotions", "list_promotions", "administration",
        "What was promoted into an environment, newest first", promotion_replies.PromotionList,
        _WITH_QUERY | _OWNED, query=PromotionsQuery,
    ),
    _Entry(
        "post", "/admin/v1/promotions", "promote", "administration",
        "Let what an alias leads to into the next environment, or give it another share there",
        promotion_replies.Promotion, _PROMOTING, NewPromotion, status=201,
    ),
    _Entry(
        "get", "/admin/v1/promotions/{promotion}", "get_promotion", "administration",
        "A promotion: what moved, on which evidence, and how it does", promotion_replies.Promotion,
        _WITH_QUERY | _OWNED, query=OwnQuery,
    ),
    _Entry(
        "post", "/admin/v1/rollbacks", "roll_back", "administration",
        "Let an alias lead to what it led to before", promotion_replies.Promotion,
        _WITH_BODY | _OWNED | {Code.CONFLICT}, NewRollback,
    ),
    _Entry(
        "post", "/admin/v1/evaluations", "start_evaluation", "administration",
        "Ask a route the questions of a suite, and decide whether it may serve", replies.Job,
        _WITH_BODY | _OWNED | {Code.FILE_INVALID, Code.DISK_FULL}, NewEvaluation, status=201,
    ),
    _Entry(
        "get", "/admin/v1/evaluations/{job}", "get_evaluation", "administration",
        "An evaluation with all that it found", replies.Evaluation, _WITH_QUERY | _OWNED,
        query=OwnQuery,
    ),
    _Entry(
        "get", "/admin/v1/gates", "list_gates", "administration",
        "What evaluations of an environment decided, newest first", replies.GateList,
        _WITH_QUERY | _OWNED, query=GatesQuery,
    ),
    _Entry(
        "get", "/admin/v1/gates/{gate}", "get_gate", "administration",
        "A gate, verdict by verdict", replies.Gate, _WITH_QUERY | _OWNED, query=OwnQuery,
    ),
]  # fmt: skip


def build() -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/healthz": {"get": _open("healthz", "The process answers", {"200": _json(replies.Alive)})},
        "/readyz": {
            "get": _open(
                "readyz",
                "A request could be served now",
                {"200": _json(replies.Ready), "503": _json(replies.Ready, "Not now, and why")},
            )
        },
        "/metrics": {"get": _open("metrics", "Prometheus metrics", {"200": _text("text/plain")})},
        "/admin/v1/login": {
            "get": _open(
                "login_clients",
                "The identity providers that commands log in with",
                {"200": _json(replies.LoginClients)},
            )
        },
        **_PAGES,
    }
    for entry in [*_INFER, *_OTHERS]:
        paths.setdefault(entry.path, {})[entry.method] = _operation(entry)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Freehold",
            "version": freehold.__version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "headers": _HEADERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
        },
        "security": [{"bearer": []}, {"x-api-key": []}, {"api-key": []}],
    }


def _schemas() -> Schema:
    """All shapes at once, so that two of one name would not hide each other."""
    asked = [entry.body for entry in [*_INFER, *_OTHERS] if entry.body]
    answered = [entry.answer for entry in [*_INFER, *_OTHERS] if entry.answer]
    answered += [entry.streams for entry in _INFER if entry.streams]
    answered += [replies.Error, replies.Alive, replies.Ready, replies.LoginClients]
    _, whole = TypeAdapter.json_schemas(
        [(shape.__name__, "validation", TypeAdapter(shape)) for shape in asked]
        + [(shape.__name__, "serialization", TypeAdapter(shape)) for shape in answered],
        ref_template="#/components/schemas/{model}",
    )
    found: Schema = whole["$defs"]
    return found


def _operation(entry: _Entry) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": entry.name,
        "tags": [entry.tag],
        "summary": entry.summary,
        "responses": {str(entry.status): _answer(entry), **_refusals(_GUARDED | entry.codes)},
    }
    parameters = _parameters(entry)
    if parameters:
        operation["parameters"] = parameters
    if entry.body is not None:
        content = {"application/json": {"schema": _ref(entry.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _answer(entry: _Entry) -> Schema:
    answer = _json(entry.answer)
    if entry.streams is not None:
        answer["content"]["text/event-stream"] = {"schema": _event(entry.streams)}
    if entry.tag == "inference":
        for name in (
            "x-freehold-model-digest", "x-freehold-adapter-digest", "x-freehold-engine",
            "x-freehold-weights", *_RATE_HEADERS,
        ):  # fmt: skip
            answer["headers"][name] = {"$ref": f"#/components/headers/{name}"}
    return answer


def _event(shape: type[BaseModel]) -> Schema:
    """What `stream: true` brings: this schema is of each event, as tools for
    OpenAPI 3.1 read it."""
    holds = {"anyOf": [_ref(shape), _ref(replies.Error)]}
    data: Schema = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": holds,
    }
    if shape is not replies.ResponseEvent:
        data = {"anyOf": [{"const": "[DONE]"}, data]}
    return {
        "type": "object",
        "description": "One server-sent event; `[DONE]` ends a stream that is whole.",
        "required": ["data"],
        "properties": {"event": {"type": "string"}, "data": data},
    }


def _refusals(codes: Iterable[Code]) -> Schema:
    """One response a status, with the codes that come under it."""
    found: dict[int, list[str]] = {}
    for code in sorted(codes):
        found.setdefault(HTTP[code][0], []).append(code.value)
    return {str(status): _refusal(status, names) for status, names in sorted(found.items())}


def _refusal(status: int, codes: list[str]) -> Schema:
    refusal = _json(replies.Error, _EXPLAINED[status])
    one_of_these = {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}
    content = refusal["content"]["application/json"]
    content["schema"] = {"allOf": [content["schema"], one_of_these]}
    for name in {401: ["www-authenticate"], 429: ["retry-after"], 503: ["retry-after"]}.get(
        status, []
    ):
        refusal["headers"][name] = {"$ref": f"#/components/headers/{name}"}
    return refusal


def _parameters(entry: _Entry) -> list[Schema]:
    found: list[Schema] = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
        for part in entry.path.split("/")
        if part.startswith("{")
    ]
    if entry.query is not None:
        whole = entry.query.model_json_schema(ref_template="{model}")
        needed, own = whole.get("required", ()), whole.get("$defs", {})
        found += [
            {"name": name, "in": "query", "required": name in needed, "schema": _with(own, schema)}
            for name, schema in whole["properties"].items()
        ]
    if entry.tag == "inference":
        found += _INFERENCE_HEADERS
    return found


def _with(own: Schema, part: Any) -> Any:
    """What it refers to in place: the shapes of bodies may have another of that name."""
    if isinstance(part, dict):
        if "$ref" in part:
            return _with(own, own[part["$ref"]])
        return {name: _with(own, each) for name, each in part.items()}
    return [_with(own, each) for each in part] if isinstance(part, list) else part


def _ref(shape: type[BaseModel]) -> Schema:
    return {"$ref": f"#/components/schemas/{shape.__name__}"}


def _json(shape: type[BaseModel] | None, said: str = "Done") -> Schema:
    schema = {"type": "object"} if shape is None else _ref(shape)
    return {**_text("application/json", said), "content": {"application/json": {"schema": schema}}}


def _text(kind: str, said: str = "Done") -> Schema:
    return {
        "description": said,
        "headers": {
            "x-freehold-request-id": {"$ref": "#/components/headers/x-freehold-request-id"}
        },
        "content": {kind: {"schema": {"type": "string"}}},
    }


def _page(name: str, summary: str, *statuses: int) -> Schema:
    said = {200: "A page", 303: "Go to another page"}
    answers = {str(each): _text("text/html", said.get(each, "Why not")) for each in statuses}
    return _open(name, summary, answers)


def _open(name: str, summary: str, responses: Schema) -> Schema:
    """An operation that needs no key."""
    always = _refusals({Code.HOST_NOT_ALLOWED, Code.INTERNAL})
    return {
        "operationId": name,
        "tags": ["health"],
        "summary": summary,
        "security": [],
        "responses": {**responses, **always},
    }


def _header(said: str, required: bool, **schema: Any) -> Schema:
    return {"description": said, "required": required, "schema": {"type": "string", **schema}}


_RATE_HEADERS = {
    f"x-ratelimit-{part}-{measure}": _header(f"{said} (where a limit for a minute holds).", False)
    for measure in ("requests", "tokens")
    for part, said in (
        ("limit", f"So many {measure} a minute"),
        ("remaining", f"The {measure} that this minute still allows"),
    )
}
_NOT_DONE = (400, 401, 403, 404, 429, 503)
_PAGES = {
    "/console": {"get": _page("console", "Who is logged in, and what they may", 200, *_NOT_DONE)},
    "/console/login": {
        "get": _page("console_login", "Go to a provider", 200, 303, *_NOT_DONE),
    },
    "/console/callback": {
        "get": _page("console_callback", "Come back from a provider", 303, 409, *_NOT_DONE),
    },
    "/console/logout": {"post": _page("console_logout", "End this session", 303, *_NOT_DONE)},
    "/console/sessions/end": {
        "post": _page("console_end_session", "End one's own session", 303, *_NOT_DONE),
    },
    "/console/style.css": {
        "get": _open("console_style", "How the pages look", {"200": _text("text/css")}),
    },
}
_HEADERS = {
    **_RATE_HEADERS,
    "x-freehold-request-id": _header(
        "Names this request in the log and in the records.", True, pattern="^req_[0-9A-Z]{26}$"
    ),
    "x-freehold-model-digest": _header(
        "The weights that answered, as the engine computed it; absent for an upstream.",
        False,
        pattern="^sha256:[0-9a-f]{64}$",
    ),
    "x-freehold-adapter-digest": _header(
        "The adapter that it answered under, as the engine says; absent for a bare base.",
        False,
        pattern="^sha256:[0-9a-f]{64}$",
    ),
    "x-freehold-engine": _header("The engine that answered.", False),
    "x-freehold-weights": _header(
        "`proved` where the engine names the weights that computed the answer, `claimed` where "
        "it repeats what it was asked for.",
        False,
        pattern="^(proved|claimed)$",
    ),
    "retry-after": _header("Seconds to wait.", False, pattern="^[0-9]+$"),
    "www-authenticate": _header("How to send a key.", True),
}
_INFERENCE_HEADERS = [
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same key with the same body within 24 hours gets the same answer.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    },
    {
        "name": "x-freehold-conversation",
        "in": "header",
        "description": "A label, kept with the record of the request.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    },
    {
        "name": "x-freehold-priority",
        "in": "header",
        "schema": {"type": "string", "enum": ["interactive", "batch"], "default": "interactive"},
    },
]
