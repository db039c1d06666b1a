"""The two kinds of error, and the closed list of their codes.

A `UserError` is the caller's to fix: its message is one sentence that names the
cause and the next step, and it is shown as it is. A `Fault` is ours to fix: its
text goes to the log and the caller sees a fixed sentence. Codes are stable; the
HTTP status and the OpenAI error type of each are assigned in `serve/errors.py`.
"""

from enum import StrEnum


class Code(StrEnum):
    # who is asking
    MISSING_API_KEY = "missing_api_key"
    INVALID_API_KEY = "invalid_api_key"
    EXPIRED_API_KEY = "expired_api_key"
    INVALID_TOKEN = "invalid_token"  # noqa: S105
    EXPIRED_TOKEN = "expired_token"  # noqa: S105
    INVALID_SESSION = "invalid_session"
    CROSS_SITE = "cross_site_request"
    LOGIN_FAILED = "login_failed"
    FORBIDDEN = "insufficient_permissions"
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    CERTIFICATE_NOT_ALLOWED = "certificate_not_allowed"
    ENVIRONMENT_NOT_SERVED = "environment_not_served"
    KEY_SUSPENDED = "key_suspended"
    TENANT_DISABLED = "tenant_disabled"
    ACCESS_ENDED = "access_ended"
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    RATE_LIMITED = "rate_limit_exceeded"
    BUDGET_EXCEEDED = "budget_exceeded"
    PRICE_UNKNOWN = "price_unknown"
    HOST_NOT_ALLOWED = "host_not_allowed"
    # what is asked
    INVALID_JSON = "invalid_json"
    INVALID_VALUE = "invalid_value"
    UNKNOWN_PARAMETER = "unknown_parameter"
    UNSUPPORTED_PARAMETER = "unsupported_parameter"
    UNSUPPORTED_ENDPOINT = "unsupported_endpoint"
    REQUEST_TOO_LARGE = "request_too_large"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    PROMPT_QUARANTINED = "prompt_quarantined"
    MODEL_NOT_FOUND = "model_not_found"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    POLICY_INVALID = "policy_invalid"
    IDEMPOTENCY_IN_FLIGHT = "idempotency_in_flight"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    # what answers
    OVERLOADED = "overloaded"
    SHUTTING_DOWN = "shutting_down"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    ENGINE_FAILED = "engine_failed"
    ENGINE_TIMEOUT = "engine_timeout"
    ADAPTER_UNAVAILABLE = "adapter_unavailable"
    ADAPTER_MISMATCH = "adapter_mismatch"
    LIMIT_REACHED = "limit_reached"
    GATE_NOT_PASSED = "gate_not_passed"
    TRAINING_FAILED = "training_failed"
    CLIENT_TOO_SLOW = "client_too_slow"
    UPSTREAM_REFUSED = "upstream_refused"
    UPSTREAM_RATE_LIMITED = "upstream_rate_limited"
    IDENTITY_MISMATCH = "identity_mismatch"
    PROVIDER_UNREACHABLE = "provider_unreachable"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    INTERNAL = "internal_error"
    # the machine and its files; these reach people through the CLI
    CONFIG_INVALID = "config_invalid"
    HOME_IN_USE = "home_in_use"
    PORT_IN_USE = "port_in_use"
    GATEWAY_NOT_RUNNING = "gateway_not_running"
    FILE_INVALID = "file_invalid"
    FILE_REFUSED = "file_refused"
    DIGEST_MISMATCH = "digest_mismatch"
    LICENCE_NOT_ACCEPTED = "licence_not_accepted"
    SOURCE_UNREACHABLE = "source_unreachable"
    SOURCE_NOT_FOUND = "source_not_found"
    AUDIT_BROKEN = "audit_broken"
    DISK_FULL = "disk_full"
    NOT_INSTALLED = "not_installed"


class FreeholdError(Exception):
    """Base of both kinds; never raised itself."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class UserError(FreeholdError):
    """The caller can mend this.

    `param` is the path of the offending field as OpenAI writes it
    (`messages[0].role`). `retry_after_s` is set when waiting helps.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(code, message)
        self.param = param
        self.retry_after_s = retry_after_s


class Fault(FreeholdError):
    """We must mend this; `message` is for the log only."""

    def __init__(self, message: str, code: Code = Code.INTERNAL) -> None:
        super().__init__(code, message)
