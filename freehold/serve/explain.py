"""Why somebody may do something, or may not: which policies decide, and which role is
missing."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress, model_validator

from freehold.config.schema import Name
from freehold.core.action import (
    ON_INSTALLATION,
    ON_TENANT,
    USING,
    Action,
    Installation,
    Space,
    TenantItself,
)
from freehold.core.binding import ROLES, Environment, Principal
from freehold.core.clock import Clock
from freehold.core.departure import Restraint
from freehold.core.errors import Code, UserError
from freehold.secure.keys import principal_of
from freehold.secure.policy import Resource
from freehold.secure.rotation import no_key
from freehold.serve.admin.roles import Group, ProviderName, chosen_issuer
from freehold.serve.admin.sessions import PersonId
from freehold.serve.directory import Directory
from freehold.serve.owner import Owner
from freehold.serve.people import People
from freehold.serve.policies import Explained, LivePolicies
from freehold.serve.routes import Reference
from freehold.serve.tenants import Tenants
from freehold.store.sql import SqlStore


class Question(BaseModel):
    """Who, by `key`, `person` or `groups`, what, and with which model. `provider` may be left
    out where there is one, `address` where no policy looks at it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    person: PersonId | None = None
    groups: Annotated[tuple[Group, ...], Field(min_length=1, max_length=200)] | None = None
    provider: ProviderName | None = None
    action: Action = Action.INFER
    model: Name | None = None
    address: IPvAnyAddress | None = None
    tenant: Reference | None = None
    environment: Environment | None = None

    @model_validator(mode="after")
    def _one_who(self) -> "Question":
        if [self.key, self.person, self.groups].count(None) != 2:
            raise ValueError("the question needs one of key, person and groups")
        if (self.model is None) == (self.action is Action.INFER):
            raise ValueError("the question needs model for infer, and for nothing else")
        return self


@dataclass(frozen=True, slots=True)
class Explainer:
    """`people` is None where there are only keys."""

    store: SqlStore
    tenants: Tenants
    policies: LivePolicies
    directory: Directory
    people: People | None
    clock: Clock

    def explain(self, asked: Question, owner: Owner) -> dict[str, Any]:
        """May block. Raises `UserError(NOT_FOUND)` for somebody who is not known."""
        who, hindrance = self._who(asked, owner)
        resource = self._resource(asked, owner)
        if resource is None:
            none = f"there is no model {asked.model!r} in {owner[1]}"
            return _shown(asked, owner, who, None, hindrance or none)
        address = None if asked.address is None else str(asked.address)
        found = self.policies.explained(who, asked.action, resource, address)
        return _shown(asked, owner, who, found, hindrance)

    def _who(self, asked: Question, owner: Owner) -> tuple[Principal, str | None]:
        """And what keeps them out whatever the policies say."""
        if asked.key is not None:
            return self._key(asked.key, asked.action, owner)
        if self.people is None:
            raise UserError(Code.NOT_FOUND, "No identity provider is in the settings: name a key.")
        tenant_id, environment = owner
        if asked.person is not None:
            session = self.store.last_session(tenant_id, asked.person)
            if session is None:
                raise UserError(
                    Code.NOT_FOUND,
                    "This person has not logged in lately, so their groups are not known: name "
                    "the groups.",
                    param="person",
                )
            id, issuer, groups = session.person_id, session.issuer, session.groups
        else:
            id, groups = "somebody", frozenset(asked.groups or ())
            issuer = chosen_issuer(self.people.providers, asked.provider)
        provider = self.people.called(issuer)
        granted = [] if provider is None else self.people.granted(provider[1], tenant_id, groups)
        scopes = next((each.scopes for each in granted if each.environment is environment), None)
        who = Principal(id, tenant_id, environment, scopes or frozenset(), None, groups=groups)
        if scopes is None:
            return who, f"none of these groups has a role in {environment}"
        return who, None

    def _key(self, key_id: str, action: Action, owner: Owner) -> tuple[Principal, str | None]:
        record = self.store.key(*owner, key_id)
        if record is None:
            raise no_key()
        hindrance = None
        if record.revoked_at_us is not None:
            hindrance = "the key was revoked"
        elif record.expires_at_us is not None and record.expires_at_us <= self.clock.wall_us():
            hindrance = "the key has expired"
        elif record.restraint is Restraint.SUSPENDED:
            hindrance = "the key is suspended until somebody confirms its use"
        elif record.restraint is Restraint.STEPPED_DOWN and action not in USING:
            hindrance = "the key was stepped down to using models until somebody confirms its use"
        elif not self.tenants.is_enabled(owner[0]):
            hindrance = "the tenant is disabled"
        return principal_of(record), hindrance

    def _resource(self, asked: Question, owner: Owner) -> Resource | None:
        if asked.action in ON_INSTALLATION:
            return Installation()
        if asked.action in ON_TENANT:
            return TenantItself(owner[0])
        if asked.model is None:
            return Space(*owner)
        return self.directory.routes(*owner).get(asked.model)


def _shown(
    asked: Question, owner: Owner, who: Principal, found: Explained | None, hindrance: str | None
) -> dict[str, Any]:
    is_allowed = found is not None and found.decision.is_allowed and hindrance is None
    return {
        "allowed": is_allowed,
        "answer": _answer(asked, owner[1], who, found, hindrance),
        "principal": {
            "id": who.id,
            "roles": sorted(ROLES[each].value for each in who.scopes),
            "groups": None if who.groups is None else sorted(who.groups),
            "models": None if who.models is None else sorted(who.models),
        },
        "policies": [dataclasses.asdict(each) for each in (found.decided if found else ())],
        "missing": [
            {
                "role": each.role.value,
                "scope": each.role.scope.value,
                "policies": list(each.because),
            }
            for each in (found.lacking if found else ())
        ],
    }


def _answer(
    asked: Question,
    environment: Environment,
    who: Principal,
    found: Explained | None,
    hindrance: str | None,
) -> str:
    """In one sentence."""
    what = asked.action.value.replace("_", " ")
    if asked.model is not None:
        what = f"{what} with {asked.model}"
    deed = f"{what} in {environment}"
    if hindrance is not None or found is None:
        return f"{who.id} may not {deed}: {hindrance}."
    decision = found.decision
    if decision.is_allowed:
        return f"{who.id} may {deed}: {_listed(decision.because)} permits it."
    if decision.failed:
        return f"{who.id} may not {deed}: a policy that decides about it cannot be evaluated."
    if decision.because:
        return f"{who.id} may not {deed}: {_listed(decision.because)} forbids it."
    if found.lacking:
        roles = " or ".join(each.role.value for each in found.lacking)
        return f"{who.id} may not {deed}: no policy permits it without the role {roles}."
    return f"{who.id} may not {deed}: no policy permits it."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)
