"""The policies as requests meet them: replaced whole when somebody writes one."""

import logging
from dataclasses import dataclass

from freehold.core.action import (
    ON_INSTALLATION,
    ON_TENANT,
    USING,
    Action,
    Installation,
    Space,
    TenantItself,
)
from freehold.core.acts import acting
from freehold.core.binding import Binding, Principal
from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.secure.keys import stepped_down
from freehold.secure.policy import (
    ANY,
    Decision,
    Lacking,
    Policies,
    Question,
    Resource,
    Told,
    circumstances,
)
from freehold.store.base import PolicyStore

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Explained:
    decision: Decision
    decided: tuple[Told, ...]
    lacking: tuple[Lacking, ...]


class LivePolicies:
    """Read by many threads, replaced by one at a time."""

    def __init__(self, store: PolicyStore, clock: Clock) -> None:
        """Raises `UserError(POLICY_INVALID)` for a stored policy that does not hold any
        more: the start ends there rather than without it."""
        self._store = store
        self._clock = clock
        self.is_stale = False  # whether the store has some that do not hold
        self._written = store.every_policy()
        self._now = Policies(self._written)

    def reload(self) -> None:
        """May block. What cannot be read leaves the policies as they were, and where nobody
        wrote any what was decided stays known."""
        written = self._store.every_policy()
        if written == self._written:
            return
        try:
            self._now = Policies(written)
            self._written = written
            self.is_stale = False
        except UserError as error:  # one does not hold: it is in the store all the same
            self.is_stale = True
            _logger.error("policies_not_reloaded", extra={"reason": error.message})

    def decide(
        self, principal: Principal, action: Action, resource: Resource, address: str | None = None
    ) -> Decision:
        now = self._now
        when = circumstances(self._clock, address) if now.minds_circumstances else ANY
        decision = now.decide(Question(principal, action, resource, when))
        if decision.is_allowed and (who := acting()) is not None:
            who.policies = decision.because
        return decision

    def explained(
        self, principal: Principal, action: Action, resource: Resource, address: str | None
    ) -> Explained:
        """A decision with its reasons, by the policies of one moment."""
        now = self._now
        when = circumstances(self._clock, address)
        question = Question(principal, action, resource, when)
        decision = now.decide(question)
        lacking = () if decision.is_allowed else now.lacking(question)
        return Explained(decision, now.told(question, decision), lacking)

    def permits(self, binding: Binding) -> bool:
        """Whether a request that was admitted still would be."""
        decision = self.decide(binding.principal, Action.INFER, binding.route, binding.address)
        return decision.is_allowed

    def require_somewhere(self, principal: Principal, action: Action, address: str | None) -> None:
        """Raises unless it may, where it belongs; what exactly it is about is asked once it
        is known. Who uses models may at least see some."""
        place: Resource
        if action in ON_INSTALLATION:
            place = Installation()
        elif action in ON_TENANT:
            place = TenantItself(principal.tenant_id)
        else:
            place = Space(principal.tenant_id, principal.environment)
        first = Action.LIST_MODELS if action is Action.INFER else action
        self.require(principal, first, place, address)

    def require(
        self, principal: Principal, action: Action, resource: Resource, address: str | None = None
    ) -> None:
        """Raises `UserError(FORBIDDEN)` with what decided. No policy permits a key that was
        stepped down more than to use models."""
        if principal.is_stepped_down and action not in USING:
            raise stepped_down()
        decision = self.decide(principal, action, resource, address)
        if not decision.is_allowed:
            raise refused(action, decision)


def refused(action: Action, decision: Decision) -> UserError:
    if (who := acting()) is not None:
        who.policies = decision.because
    what = action.value.replace("_", " ")
    if decision.failed:
        why = "a policy that decides about it cannot be evaluated"
    elif decision.own:
        why = f"the policy {decision.own[0]!r} forbids it"
    elif decision.because:
        why = "what it is about does not belong to this principal"
    else:
        why = f"that takes the scope {' or '.join(map(repr, _scopes_for(action)))}"
    return UserError(
        Code.FORBIDDEN, f"This key may not {what}: {why}. Ask your administrator about it."
    )


def _scopes_for(action: Action) -> list[str]:
    """The least that the default policies ask for."""
    if action in (Action.INFER, Action.LIST_MODELS):
        return ["infer"]
    if action is Action.CHANGE_POLICIES:
        return ["own"]
    if action is Action.READ_CONTENT:
        return ["audit"]
    if action in (
        Action.CHANGE_TENANTS,
        Action.READ_STATUS,
        Action.SET_BUDGETS,
        Action.READ_OVERALL_AUDIT,
        Action.READ_ALL_EVENTS,
        Action.READ_BACKUPS,
        Action.MAKE_BACKUPS,
        Action.ROTATE_SIGNING_KEY,
        Action.REVOKE_SIGNING_KEY,
        Action.READ_DECISIONS,
        Action.CHANGE_DECISIONS,
    ):
        return ["operate"]
    return ["admin"]


def model_not_found(alias: str) -> UserError:
    shown = alias if len(alias) <= 60 else alias[:57] + "..."
    return UserError(
        Code.MODEL_NOT_FOUND,
        f"There is no model {shown!r} for this API key: GET /v1/models lists what there is.",
        param="model",
    )
