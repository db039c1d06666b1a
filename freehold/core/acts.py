"""Administrative acts: what people change, and who is changing something now.

Whoever answers somebody who administers says so once, around all of it (`acting_as`). The
store asks here when something is changed, so that no change needs to be told who made it,
and none is made without a record.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum


class Act(StrEnum):
    """What is done to what."""

    TENANT_CREATE = "tenant.create"
    TENANT_CHANGE = "tenant.change"
    TENANT_REMOVE = "tenant.remove"
    KEY_CREATE = "key.create"
    KEY_ROTATE = "key.rotate"
    KEY_REVOKE = "key.revoke"
    ROUTE_SET = "route.set"
    ROUTE_REMOVE = "route.remove"
    ADAPTER_ADD = "adapter.add"
    ADAPTER_REMOVE = "adapter.remove"
    ADAPTER_SIGN = "adapter.sign"
    SIGNING_KEY_ROTATE = "signing_key.rotate"
    SIGNING_KEY_REVOKE = "signing_key.revoke"
    DATASET_ADD = "dataset.add"
    DATASET_REMOVE = "dataset.remove"
    POLICY_SET = "policy.set"
    POLICY_REMOVE = "policy.remove"
    LIMIT_SET = "limit.set"
    LIMIT_REMOVE = "limit.remove"
    SUBJECT_FORGET = "subject.forget"
    CONTENT_READ = "content.read"
    CONTENT_REMOVE = "content.remove"
    FEEDBACK_GIVE = "feedback.give"
    FEEDBACK_COLLECT = "feedback.collect"
    SESSION_OPEN = "session.open"
    SESSION_END = "session.end"
    SESSION_CUT_OFF = "session.cut_off"
    ROLE_GRANT = "role.grant"
    ROLE_REVOKE = "role.revoke"
    BACKUP_MAKE = "backup.make"
    DECISION_RECORD = "decision.record"
    JOB_START = "job.start"
    JOB_CANCEL = "job.cancel"
    JOB_RESUME = "job.resume"
    JOB_REMOVE = "job.remove"
    GATE_MAKE = "gate.make"
    GATE_IMPORT = "gate.import"
    REVISION_EXPORT = "revision.export"
    PROMOTION_MAKE = "promotion.make"
    PROMOTION_CHANGE = "promotion.change"
    PROMOTION_ROLL_BACK = "promotion.roll_back"
    KEY_CONFIRM = "key.confirm"
    KEY_CHANGE = "key.change"
    KEY_STEP_DOWN = "key.step_down"
    KEY_SUSPEND = "key.suspend"


class Via(StrEnum):
    API = "api"
    COMMAND = "command"  # on a home that no gateway serves
    START = "start"  # the gateway itself
    GATEWAY = "gateway"  # the same, while it runs


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that was changed, as its record tells it. `fields` are names and never
    values; `name` is what people call a thing that is no person's, `about` one that may be."""

    act: Act
    stream: str
    id: str
    fields: tuple[str, ...] = ()
    name: str | None = None
    about: str | None = None


@dataclass(slots=True)
class Acting:
    """Who administers now, how they came, and by which right. `policies` are those that
    decided last about them."""

    principal: str
    via: Via
    tenant_id: str = ""
    action: str = ""
    operation: str = ""
    request_id: str | None = None
    policies: tuple[str, ...] = ()
    personal: Mapping[str, str] = field(default_factory=dict)


_now: ContextVar[Acting | None] = ContextVar("acting", default=None)


def acting() -> Acting | None:
    """None where nobody administers: the gateway itself starts, or meters."""
    return _now.get()


@contextmanager
def acting_as(who: Acting) -> Iterator[Acting]:
    """Also for the threads that work is handed to from within."""
    token = _now.set(who)
    try:
        yield who
    finally:
        _now.reset(token)
