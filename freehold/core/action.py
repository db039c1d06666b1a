"""What a principal may want to do, and with what: the words that policies are written in."""

from dataclasses import dataclass
from enum import StrEnum

from freehold.core.binding import Environment


class Action(StrEnum):
    INFER = "infer"
    LIST_MODELS = "list_models"
    FEEDBACK = "feedback"
    READ_KEYS = "read_keys"
    CHANGE_KEYS = "change_keys"
    READ_ROUTES = "read_routes"
    CHANGE_ROUTES = "change_routes"
    READ_ADAPTERS = "read_adapters"
    CHANGE_ADAPTERS = "change_adapters"
    ROTATE_SIGNING_KEY = "rotate_signing_key"
    REVOKE_SIGNING_KEY = "revoke_signing_key"
    READ_DATASETS = "read_datasets"
    CHANGE_DATASETS = "change_datasets"
    READ_USAGE = "read_usage"
    READ_LIMITS = "read_limits"
    CHANGE_LIMITS = "change_limits"
    SET_BUDGETS = "set_budgets"
    READ_TENANTS = "read_tenants"
    CHANGE_TENANTS = "change_tenants"
    READ_SESSIONS = "read_sessions"
    CHANGE_SESSIONS = "change_sessions"
    READ_ROLES = "read_roles"
    CHANGE_ROLES = "change_roles"
    READ_POLICIES = "read_policies"
    CHANGE_POLICIES = "change_policies"
    FORGET_SUBJECTS = "forget_subjects"
    READ_CONTENT = "read_content"
    REMOVE_CONTENT = "remove_content"
    READ_AUDIT = "read_audit"
    READ_OVERALL_AUDIT = "read_overall_audit"
    READ_EVENTS = "read_events"
    READ_ALL_EVENTS = "read_all_events"
    READ_MODELS = "read_models"
    READ_STATUS = "read_status"
    READ_BACKUPS = "read_backups"
    MAKE_BACKUPS = "make_backups"
    READ_DECISIONS = "read_decisions"
    CHANGE_DECISIONS = "change_decisions"
    READ_JOBS = "read_jobs"
    CHANGE_JOBS = "change_jobs"
    PROMOTE = "promote"


# What they are about; all others are about a tenant's environment, `INFER` about a route.
# Policies are a tenant's, or the installation's.
ON_TENANT = frozenset(
    {
        Action.READ_TENANTS,
        Action.CHANGE_TENANTS,
        Action.READ_SESSIONS,
        Action.CHANGE_SESSIONS,
        Action.READ_POLICIES,
        Action.CHANGE_POLICIES,
        Action.FORGET_SUBJECTS,
    }
)
ON_INSTALLATION = frozenset(
    {
        Action.READ_MODELS,
        Action.READ_STATUS,
        Action.READ_OVERALL_AUDIT,
        Action.READ_ALL_EVENTS,
        Action.READ_BACKUPS,
        Action.MAKE_BACKUPS,
        Action.ROTATE_SIGNING_KEY,
        Action.REVOKE_SIGNING_KEY,
        Action.READ_DECISIONS,
        Action.CHANGE_DECISIONS,
    }
)
# All that is left to a key which was stepped down.
USING = frozenset({Action.INFER, Action.LIST_MODELS})
# Whoever does any other than looking changes something, and leaves an audit record.
_LOOKING = ("read_", "list_", Action.INFER.value)
CHANGING = frozenset(action for action in Action if not action.value.startswith(_LOOKING))


@dataclass(frozen=True, slots=True)
class Installation:
    """What all tenants share."""


@dataclass(frozen=True, slots=True)
class TenantItself:
    tenant_id: str


@dataclass(frozen=True, slots=True)
class Space:
    """A tenant in one environment: where its keys, routes, adapters and usage are."""

    tenant_id: str
    environment: Environment
