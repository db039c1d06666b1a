"""Which errors an operation may answer with, by what it takes."""

from freehold.core.errors import Code

GUARDED = frozenset(
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
WITH_QUERY = frozenset({Code.UNKNOWN_PARAMETER})
OWNED = frozenset({Code.NOT_FOUND})  # what belongs to a tenant, which may not be there
WITH_BODY = frozenset(
    {
        Code.INVALID_JSON,
        Code.UNKNOWN_PARAMETER,
        Code.REQUEST_TOO_LARGE,
        Code.CLIENT_TOO_SLOW,
    }
)
PLANNING = WITH_BODY | {Code.FILE_INVALID, Code.MODEL_NOT_FOUND, Code.OVERLOADED}
ABOUT_WEIGHTS = frozenset(
    {Code.MODEL_NOT_FOUND, Code.NOT_FOUND, Code.FILE_REFUSED, Code.ADAPTER_MISMATCH}
)
TUNING = WITH_BODY | {
    Code.NOT_FOUND,
    Code.MODEL_NOT_FOUND,
    Code.CONFLICT,
    Code.FILE_INVALID,
    Code.LIMIT_REACHED,
    Code.BUDGET_EXCEEDED,
    Code.PRICE_UNKNOWN,
    Code.DISK_FULL,
}
PROMOTING = (
    WITH_BODY
    | ABOUT_WEIGHTS
    | {
        Code.CONFLICT,
        Code.GATE_NOT_PASSED,
        Code.LICENCE_NOT_ACCEPTED,
        Code.UNSUPPORTED_PARAMETER,
    }
)
INFERENCE = WITH_BODY | {
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
EXPLAINED = {
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
