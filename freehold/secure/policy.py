"""Who may do what: Cedar policies, those that come with Freehold and those of its operators.

Nothing is allowed that no policy permits, a `forbid` wins, and a policy that cannot be
evaluated denies: Cedar itself would skip it, and with it perhaps the `forbid` that mattered.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import cedarpy

from freehold.core.action import Action, Installation, Space, TenantItself
from freehold.core.binding import ROLES, Principal, Role, Route
from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.core.policy import Policy
from freehold.secure import network

Resource = Route | Space | TenantItself | Installation
MAX_POLICY_CHARACTERS = 64_000
DEFAULT_NAME = "freehold"
_FORGET_AFTER = 20_000
_MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Circumstances:
    """`address` is the client's, None on a unix socket; the rest is the time in UTC."""

    address: str | None
    minute: int
    weekday: int


ANY = Circumstances(None, 0, 0)  # where no policy looks at them


@dataclass(frozen=True, slots=True)
class Question:
    principal: Principal
    action: Action
    resource: Resource
    circumstances: Circumstances


@dataclass(frozen=True, slots=True)
class Decision:
    """`because`: the policies that decided, as `name` or `name/id`; none when nothing
    permits. `failed`: what could not be evaluated, which alone denies."""

    is_allowed: bool
    because: tuple[str, ...]
    failed: tuple[str, ...] = ()

    @property
    def own(self) -> tuple[str, ...]:
        """Those that people wrote, among the ones that decided."""
        return tuple(name for name in self.because if not name.startswith(f"{DEFAULT_NAME}/"))

    @property
    def is_not_theirs(self) -> bool:
        """Denied because it belongs to another tenant or environment, or is not listed."""
        return bool(self.because) and not (self.is_allowed or self.own or self.failed)


@dataclass(frozen=True, slots=True)
class Told:
    """One policy, for people to read: `says` is what its annotation of that name says."""

    name: str
    effect: str
    says: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Lacking:
    """A role that would do, and the policies which permit it then."""

    role: Role
    because: tuple[str, ...]


class Policies:
    """The policies of one moment. Decisions are remembered; safe from any thread."""

    def __init__(self, own: Sequence[Policy] = ()) -> None:
        """Raises `UserError(POLICY_INVALID)` for one that `check` refuses."""
        statements = self._statements = _joined(own)
        self._set = cedarpy.PolicySet.from_json_str(
            json.dumps({"staticPolicies": statements, "templates": {}, "templateLinks": []})
        )
        # As long as no policy looks at them they need neither be found out nor told apart.
        self.minds_circumstances = '"Var": "context"' in json.dumps(statements)
        self._known: OrderedDict[Question, Decision] = OrderedDict()
        self._lock = threading.Lock()

    def decide(self, question: Question) -> Decision:
        """At most microseconds for a question asked before."""
        if not self.minds_circumstances and question.circumstances is not ANY:
            question = replace(question, circumstances=ANY)
        found = self._known.get(question)
        if found is None:
            found = self._evaluate(question)
            with self._lock:
                self._known[question] = found
                if len(self._known) > _FORGET_AFTER:
                    self._known.popitem(last=False)
        return found

    def told(self, question: Question, decision: Decision) -> tuple[Told, ...]:
        """The policies that decided, as they stand; the condition that limits a tenant's to
        that tenant stands in front of its own."""
        theirs = sorted({"", question.principal.tenant_id, _tenant_of(question.resource)})
        named = [f"{tenant_id}:{name}" for name in decision.because for tenant_id in theirs]
        found = [(name, self._statements[name]) for name in named if name in self._statements]
        return tuple(_told(name.partition(":")[2], statement) for name, statement in found)

    def lacking(self, question: Question) -> tuple[Lacking, ...]:
        """With which one role more it would be allowed."""
        principal, found = question.principal, []
        for scope, role in ROLES.items():
            if scope in principal.scopes:
                continue
            more = replace(principal, scopes=principal.scopes | {scope})
            decision = self.decide(replace(question, principal=more))
            if decision.is_allowed:
                found.append(Lacking(role, decision.because))
        return tuple(found)

    def _evaluate(self, question: Question) -> Decision:
        resource = _Entity.of_resource(question.resource)
        principal = _Entity.of_principal(question.principal)
        request = {
            "principal": principal.uid,
            "action": _uid("Action", question.action),
            "resource": resource.uid,
            "context": _context(question.circumstances),
        }
        entities = [*principal.entities(), *resource.entities()]
        answer = cedarpy.is_authorized(request, self._set, _once(entities), _schema())
        failed = tuple(answer.diagnostics.errors)
        is_allowed = answer.decision is cedarpy.Decision.Allow and not failed
        # Two tenants may have policies of one name; nobody is shown another tenant's.
        because = sorted(each.partition(":")[2] for each in answer.diagnostics.reasons)
        return Decision(is_allowed, tuple(because), failed)


def circumstances(clock: Clock, address: str | None) -> Circumstances:
    minutes = clock.wall_us() // _MINUTE_US
    days, minute = divmod(minutes, 24 * 60)
    found = network.address(address) if address else None
    known = None if found is None or getattr(found, "scope_id", None) else str(found)
    return Circumstances(known, minute, (days + 3) % 7)  # 1970 began on a Thursday


def check(policy: Policy) -> None:
    """Raises `UserError(POLICY_INVALID)` with the first fault: the syntax, a word that the
    schema does not have, an attribute that may be missing, a template."""
    _own(policy)


def schema_text() -> str:
    return _file("freehold.cedarschema")


def default_text() -> str:
    return _file("default.cedar")


def _own(policy: Policy) -> Mapping[str, Any]:
    """The statements of one that a person wrote."""
    if policy.name == DEFAULT_NAME:
        raise _invalid(policy, "the policies that come with Freehold have its name")
    return _parsed(policy)


def _parsed(policy: Policy) -> Mapping[str, Any]:
    """Its statements by id, limited to its tenant."""
    if len(policy.text) > MAX_POLICY_CHARACTERS:
        raise _invalid(policy, f"it has more than {MAX_POLICY_CHARACTERS} characters")
    try:
        found = json.loads(cedarpy.policies_to_json_str(policy.text))
    except ValueError as error:
        raise _invalid(policy, str(error)) from None
    checked = cedarpy.validate_policies(policy.text, _schema())
    if not checked.validation_passed:
        raise _invalid(policy, checked.errors[0].error)
    if found.get("templates") or not found.get("staticPolicies"):
        raise _invalid(policy, "it needs at least one policy, and no templates")
    return dict(_named(policy, found["staticPolicies"].values()))


def _named(
    policy: Policy, statements: Iterable[dict[str, Any]]
) -> Iterable[tuple[str, dict[str, Any]]]:
    taken = set()
    for number, statement in enumerate(statements, 1):
        own = statement.get("annotations", {}).get("id") or str(number)
        if own in taken:
            raise _invalid(policy, f"two of its policies have the id {own!r}")
        taken.add(own)
        if policy.tenant_id is not None:
            statement["conditions"].insert(0, _within(policy.tenant_id))
        yield f"{policy.tenant_id or ''}:{policy.name}/{own}", statement


def _within(tenant_id: str) -> dict[str, Any]:
    """`when { principal.tenant == T && resource in T }`, before all that it says itself."""
    tenant = {"Value": {"__entity": _uid("Tenant", tenant_id)}}
    owns = {".": {"left": {"Var": "principal"}, "attr": "tenant"}}
    return {
        "kind": "when",
        "body": {
            "&&": {
                "left": {"==": {"left": owns, "right": tenant}},
                "right": {"in": {"left": {"Var": "resource"}, "right": tenant}},
            }
        },
    }


def _joined(own: Sequence[Policy]) -> Mapping[str, Any]:
    statements = dict(_parsed(Policy(DEFAULT_NAME, default_text())))
    for policy in own:
        found = _own(policy)
        if any(name in statements for name in found):
            raise _invalid(policy, "another policy has its name")
        statements.update(found)
    return statements


@dataclass(frozen=True, slots=True)
class _Entity:
    kind: str
    id: str
    attributes: dict[str, Any]
    parents: tuple["_Entity", ...] = ()

    @property
    def uid(self) -> dict[str, str]:
        return _uid(self.kind, self.id)

    def entities(self) -> Iterable[dict[str, Any]]:
        """It and all above it."""
        parents = [parent.uid for parent in self.parents]
        yield {"uid": self.uid, "attrs": self.attributes, "parents": parents}
        for parent in self.parents:
            yield from parent.entities()

    @staticmethod
    def of_principal(principal: Principal) -> "_Entity":
        attributes: dict[str, Any] = {
            "tenant": {"__entity": _uid("Tenant", principal.tenant_id)},
            "environments": sorted(_environments(principal)),
        }
        if principal.models is not None:
            attributes["models"] = sorted(principal.models)
        roles = tuple(_Entity("Role", ROLES[scope], {}) for scope in sorted(principal.scopes))
        if principal.groups is None:
            return _Entity("Key", principal.id, attributes, roles)
        attributes["groups"] = sorted(principal.groups)
        return _Entity("Person", principal.id, attributes, roles)

    @staticmethod
    def of_resource(resource: Resource) -> "_Entity":
        if isinstance(resource, Installation):
            return _Entity("Installation", "this", {})
        tenant = _Entity("Tenant", resource.tenant_id, {})
        if isinstance(resource, TenantItself):
            return tenant
        environment = resource.environment.value
        of_space = {"environment": environment}
        space = _Entity("Space", f"{resource.tenant_id}/{environment}", of_space, (tenant,))
        if isinstance(resource, Space):
            return space
        attributes = {**of_space, "alias": resource.alias, "engine": resource.engine}
        if resource.base_digest is not None:
            attributes["base"] = resource.base_digest
        if resource.adapter_digest is not None:
            attributes["adapter"] = resource.adapter_digest
        return _Entity("Route", resource.id, attributes, (space,))


def _tenant_of(resource: Resource) -> str:
    return "" if isinstance(resource, Installation) else resource.tenant_id


def _told(name: str, statement: Mapping[str, Any]) -> Told:
    whole = {"staticPolicies": {"it": statement}, "templates": {}, "templateLinks": []}
    text = cedarpy.format_policies(cedarpy.policies_from_json_str(json.dumps(whole)))
    says = statement.get("annotations", {}).get("says")
    return Told(name, str(statement["effect"]), says, text.strip())


def _environments(principal: Principal) -> Iterable[str]:
    if principal.is_local:
        return [each.value for each in type(principal.environment)]
    return [principal.environment.value]


def _context(found: Circumstances) -> dict[str, Any]:
    context: dict[str, Any] = {"minute": found.minute, "weekday": found.weekday}
    if found.address is not None:
        context["address"] = {"__extn": {"fn": "ip", "arg": found.address}}
    return context


def _once(entities: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The principal's tenant and the resource's may be the same."""
    return list({(each["uid"]["type"], each["uid"]["id"]): each for each in entities}.values())


def _uid(kind: str, id: str) -> dict[str, str]:
    return {"type": f"Freehold::{kind}", "id": id}


@cache
def _schema() -> cedarpy.Schema:
    return cedarpy.Schema.from_str(schema_text())


@cache
def _file(name: str) -> str:
    return resources.files("freehold.secure").joinpath("policies", name).read_text("utf-8")


def _invalid(policy: Policy, why: str) -> UserError:
    first = why.splitlines()[0][:300] if why else "it could not be read"
    return UserError(
        Code.POLICY_INVALID,
        f"The policy {policy.name!r} is refused: {first}. `freehold policy schema` prints what "
        "policies can speak of.",
    )
