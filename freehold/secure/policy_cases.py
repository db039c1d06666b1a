"""Questions with the answers that somebody expects, to try policies on before they count."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress, TypeAdapter, ValidationError

from freehold.core.action import (
    ON_INSTALLATION,
    ON_TENANT,
    Action,
    Installation,
    Space,
    TenantItself,
)
from freehold.core.binding import Environment, Principal, Route, Scope
from freehold.core.errors import Code, UserError
from freehold.secure.policy import Circumstances, Decision, Policies, Question, Resource

_MAX_CASES = 10_000


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Who(_Part):
    """A key. What is left out is as in a new key."""

    id: str = "key_someone"
    tenant: str = "default"
    environment: Environment = Environment.DEV
    scopes: tuple[Scope, ...] = (Scope.INFER,)
    models: tuple[str, ...] | None = None

    def principal(self) -> Principal:
        models = None if self.models is None else frozenset(self.models)
        return Principal(self.id, self.tenant, self.environment, frozenset(self.scopes), models)


class What(_Part):
    """What it is about; `installation` for policies that are nobody's own."""

    installation: bool = False
    tenant: str = "default"
    environment: Environment = Environment.DEV
    alias: str | None = None
    engine: str = "openvino"
    base: str | None = None
    adapter: str | None = None

    def resource(self, action: Action) -> Resource:
        if action is Action.INFER:
            return Route(
                "rte_one", self.tenant, self.environment, self.alias or "any", self.engine, "any",
                self.base, self.adapter, "any", 0,
            )  # fmt: skip
        if action in ON_INSTALLATION or self.installation:
            return Installation()
        if action in ON_TENANT:
            return TenantItself(self.tenant)
        return Space(self.tenant, self.environment)


class Case(_Part):
    """`because` names a policy that must be among those which decided."""

    name: str = ""
    who: Who = Who()
    action: Action = Action.INFER
    what: What = What()
    at: datetime | None = None
    address: IPvAnyAddress | None = None
    expect: Literal["allow", "deny"]
    because: str | None = None

    def question(self) -> Question:
        return Question(
            self.who.principal(),
            self.action,
            self.what.resource(self.action),
            moment(
                self.at or datetime.now(UTC), None if self.address is None else str(self.address)
            ),
        )


_CASES: TypeAdapter[tuple[Case, ...]] = TypeAdapter(
    Annotated[tuple[Case, ...], Field(min_length=1, max_length=_MAX_CASES)]
)


@dataclass(frozen=True, slots=True)
class Tried:
    case: Case
    decision: Decision

    @property
    def is_right(self) -> bool:
        as_expected = self.decision.is_allowed == (self.case.expect == "allow")
        named = self.case.because is None or self.case.because in self.decision.because
        return as_expected and named


def cases_in(content: object) -> tuple[Case, ...]:
    """Raises `UserError(POLICY_INVALID)` naming the first thing that is wrong."""
    try:
        return _CASES.validate_python(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise UserError(
            Code.POLICY_INVALID, f"The cases cannot be read: {where}: {problem['msg']}."
        ) from None


def tried(policies: Policies, cases: tuple[Case, ...]) -> list[Tried]:
    return [Tried(case, policies.decide(case.question())) for case in cases]


def moment(at: datetime, address: str | None) -> Circumstances:
    utc = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    return Circumstances(address, utc.hour * 60 + utc.minute, utc.weekday())
