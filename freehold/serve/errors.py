"""Codes become HTTP here and nowhere else, in OpenAI's error shape."""

from typing import Any

import orjson

from freehold.core.errors import Code, FreeholdError, UserError

_REQUEST = "invalid_request_error"
_AUTH = "authentication_error"
_PERMISSION = "permission_error"
_LIMIT = "rate_limit_error"
_SERVER = "server_error"
_QUOTA = "insufficient_quota"

# code -> (status, OpenAI error type)
HTTP: dict[Code, tuple[int, str]] = {
    Code.MISSING_API_KEY: (401, _AUTH),
    Code.INVALID_API_KEY: (401, _AUTH),
    Code.EXPIRED_API_KEY: (401, _AUTH),
    Code.INVALID_TOKEN: (401, _AUTH),
    Code.EXPIRED_TOKEN: (401, _AUTH),
    Code.INVALID_SESSION: (401, _AUTH),
    Code.CROSS_SITE: (403, _PERMISSION),
    Code.LOGIN_FAILED: (400, _REQUEST),
    Code.FORBIDDEN: (403, _PERMISSION),
    Code.ADDRESS_NOT_ALLOWED: (403, _PERMISSION),
    Code.CERTIFICATE_NOT_ALLOWED: (403, _PERMISSION),
    Code.ENVIRONMENT_NOT_SERVED: (403, _PERMISSION),
    Code.KEY_SUSPENDED: (403, _PERMISSION),
    Code.TENANT_DISABLED: (403, _PERMISSION),
    Code.ACCESS_ENDED: (403, _PERMISSION),
    Code.TOO_MANY_ATTEMPTS: (429, _LIMIT),
    Code.RATE_LIMITED: (429, _LIMIT),
    Code.BUDGET_EXCEEDED: (402, _QUOTA),
    Code.PRICE_UNKNOWN: (503, _SERVER),
    Code.HOST_NOT_ALLOWED: (421, _REQUEST),
    Code.INVALID_JSON: (400, _REQUEST),
    Code.INVALID_VALUE: (400, _REQUEST),
    Code.UNKNOWN_PARAMETER: (400, _REQUEST),
    Code.UNSUPPORTED_PARAMETER: (400, _REQUEST),
    Code.UNSUPPORTED_ENDPOINT: (400, _REQUEST),
    Code.REQUEST_TOO_LARGE: (413, _REQUEST),
    Code.CONTEXT_LENGTH_EXCEEDED: (400, _REQUEST),
    Code.PROMPT_QUARANTINED: (400, _REQUEST),
    Code.MODEL_NOT_FOUND: (404, _REQUEST),
    Code.NOT_FOUND: (404, _REQUEST),
    Code.METHOD_NOT_ALLOWED: (405, _REQUEST),
    Code.CONFLICT: (409, _REQUEST),
    Code.POLICY_INVALID: (400, _REQUEST),
    Code.IDEMPOTENCY_IN_FLIGHT: (409, _REQUEST),
    Code.IDEMPOTENCY_MISMATCH: (422, _REQUEST),
    Code.OVERLOADED: (503, _SERVER),
    Code.SHUTTING_DOWN: (503, _SERVER),
    Code.ENGINE_UNAVAILABLE: (503, _SERVER),
    Code.ENGINE_FAILED: (502, _SERVER),
    Code.ENGINE_TIMEOUT: (504, _SERVER),
    Code.ADAPTER_UNAVAILABLE: (503, _SERVER),
    Code.ADAPTER_MISMATCH: (409, _REQUEST),
    Code.LIMIT_REACHED: (409, _REQUEST),
    Code.GATE_NOT_PASSED: (409, _REQUEST),
    Code.LICENCE_NOT_ACCEPTED: (409, _REQUEST),
    Code.TRAINING_FAILED: (409, _REQUEST),
    Code.CLIENT_TOO_SLOW: (408, _REQUEST),
    Code.UPSTREAM_REFUSED: (502, _SERVER),
    Code.UPSTREAM_RATE_LIMITED: (429, _LIMIT),
    Code.IDENTITY_MISMATCH: (502, _SERVER),
    Code.PROVIDER_UNREACHABLE: (503, _SERVER),
    Code.AUDIT_UNAVAILABLE: (503, _SERVER),
    Code.STORAGE_UNAVAILABLE: (503, _SERVER),
    Code.INTERNAL: (500, _SERVER),
    Code.FILE_INVALID: (400, _REQUEST),
    Code.FILE_REFUSED: (400, _REQUEST),
    # These belong to the command line; over HTTP they would be our own fault.
    Code.CONFIG_INVALID: (500, _SERVER),
    Code.HOME_IN_USE: (500, _SERVER),
    Code.PORT_IN_USE: (500, _SERVER),
    Code.GATEWAY_NOT_RUNNING: (500, _SERVER),
    Code.DIGEST_MISMATCH: (500, _SERVER),
    Code.SOURCE_UNREACHABLE: (500, _SERVER),
    Code.SOURCE_NOT_FOUND: (500, _SERVER),
    Code.AUDIT_BROKEN: (500, _SERVER),
    Code.DISK_FULL: (507, _SERVER),
    Code.NOT_INSTALLED: (500, _SERVER),
}

_OURS = "Something went wrong inside the gateway; quote the request id to its operator."


def status_of(error: FreeholdError) -> int:
    return HTTP[error.code][0]


def body_of(error: FreeholdError) -> dict[str, Any]:
    """OpenAI's error object. The text of a `Fault` stays in the log."""
    message = error.message if isinstance(error, UserError) else _OURS
    param = error.param if isinstance(error, UserError) else None
    return {
        "error": {
            "message": message,
            "type": HTTP[error.code][1],
            "param": param,
            "code": error.code.value,
        }
    }


def response_of(error: FreeholdError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body. `Retry-After` and OpenAI's own `x-should-retry`
    tell SDKs whether another try can help."""
    content = orjson.dumps(body_of(error))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    status = status_of(error)
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, UserError) and error.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, round(error.retry_after_s))).encode()))
    return status, headers, content
