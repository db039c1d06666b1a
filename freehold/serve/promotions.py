"""How a revision comes from one environment into the next, and back: what is checked, what
comes along, and where requests go then."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from freehold.catalog.adapters import Adapters
from freehold.catalog.arriving import Arrived
from freehold.catalog.evidence import Evidence, Revision, check, deciding, known, too_old
from freehold.catalog.parity import tokenizer_digest
from freehold.config.schema import Name
from freehold.core.adapter import Adapter
from freehold.core.binding import Environment, Route
from freehold.core.errors import Code, UserError
from freehold.core.gate import Gate
from freehold.core.ids import new_id
from freehold.core.limit import Limit, Measure, Period
from freehold.core.model import ModelCard
from freehold.core.promotion import GATED, Bundle, Promotion, PromotionState, Watch
from freehold.serve.routes import NewRoute, Reason, Reference, Step, Ticket
from freehold.store.sql import SqlStore

_MOST_NAMES = 100
Owner = tuple[str, Environment]


class NewWatch(BaseModel):
    """When it is taken back by itself, beside what answered before: `errors` more of its requests
    fail, slow ones take `latency` times as long, `thumbs` more of its thumbs are down, or the
    alias `judge` marks its answers worse by `score` of ten. 0 does not look at that. Nothing is
    said before `least` requests of each; `minutes` it is watched once it has all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    errors: Annotated[float, Field(ge=0, le=1)] = 0.02
    latency: Annotated[float, Field(ge=0, le=1000)] = 1.5
    thumbs: Annotated[float, Field(ge=0, le=1)] = 0.1
    judge: Name | None = None
    score: Annotated[float, Field(gt=0, le=10)] = 1.0
    least: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    minutes: Annotated[float, Field(ge=0, le=1_000_000)] = 60.0

    def watch(self) -> Watch:
        return Watch(
            self.errors or None,
            self.latency or None,
            self.thumbs or None,
            self.judge,
            self.score,
            self.least,
            self.minutes * 60,
        )


class NewPromotion(BaseModel):
    """What the alias leads to in `source` shall be let into the environment, or what another
    installation exported and was laid into the home (`upload`): with `share` of a hundred of its
    requests, or all. The same again changes the share. `force` says why although
    something speaks against it, `accept_licence` why licences that need it allow this use;
    `with_limits`: limits of the source environment come along where there are none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alias: Name
    source: Environment | None = None
    upload: Ticket | None = None
    share: Annotated[float, Field(gt=0, le=100)] = 100.0
    force: Reason | None = None
    accept_licence: Reason | None = None
    with_limits: bool = False
    watch: NewWatch = NewWatch()
    tenant: Reference | None = None
    environment: Environment | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "NewPromotion":
        if self.source is not None and self.upload is not None:
            raise ValueError("a file says where it is from: leave the environment out")
        return self


class NewExport(BaseModel):
    """What the alias leads to shall be written for another installation, into the folder of the
    home that `download` names, which only who made it knows. Figures of its evaluation go along,
    `with_examples` the questions and answers too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alias: Name
    download: Ticket
    with_examples: bool = False
    tenant: Reference | None = None
    environment: Environment | None = None


class NewRollback(BaseModel):
    """The alias shall lead to what it led to before, or give back what it shares."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alias: Name
    reason: Reason | None = None
    tenant: Reference | None = None
    environment: Environment | None = None


@dataclass(frozen=True, slots=True)
class Promoting:
    """`environments`: those that are served. Everything may block and raises `UserError`."""

    store: SqlStore
    adapters: Adapters
    environments: Collection[Environment]
    currency: str

    def step(
        self, owner: Owner, wanted: NewPromotion, by: str, at_us: int, came: Arrived | None = None
    ) -> Step:
        """`came` is what is let in from elsewhere, instead of what serves in an environment here.
        Raises `CONFLICT` for what is there already; else as `catalog.evidence.check`."""
        tenant_id, environment = owner
        if environment not in GATED:
            raise UserError(
                Code.CONFLICT,
                f"{environment} is where revisions come from: name staging or prod.",
                param="environment",
            )
        source, revision, decided = (
            self._from_here(owner, wanted, at_us)
            if came is None
            else self._from_elsewhere(owner, wanted.alias, came, at_us)
        )
        base, adapter = revision.base, revision.adapter
        self._check_new(owner, wanted.alias, revision)
        found = check(revision, wanted.force, wanted.accept_licence)
        brought = None
        if came is not None:
            self._check_signed(came)
        elif adapter is not None:
            self.adapters.signatures.check(replace(adapter, environment=environment))
            brought = self._brought(adapter, environment, at_us)
        self._check_judge(owner, wanted.watch.judge)
        limits: tuple[Limit, ...] = ()
        if wanted.with_limits:
            theirs = self._limits_of(tenant_id, source) if came is None else self._told(came)
            limits = self._limits(owner, theirs, by, at_us)
        promotion = self._promotion(owner, wanted, base, adapter, found, by, at_us)
        promotion = replace(
            promotion,
            source=source,
            bundle=replace(promotion.bundle, limits=tuple(each.id for each in limits)),
            watch=wanted.watch.watch(),
            elsewhere=None if came is None else came.signer,
        )
        if wanted.share < 100:
            promotion = replace(
                promotion,
                share=wanted.share / 100,
                state=PromotionState.SHARING,
                whole_at_us=None,
            )
        return Step(promotion, base, brought, limits, came, decided)

    def notes(self, owner: Owner, came: Arrived) -> list[str]:
        """What a revision's installation had, and this one has not."""
        here = {each.name: each.digest for each in self.store.policies(owner[0])}
        other = sorted(
            name for name, digest in came.about.policies.items() if here.get(name) != digest
        )
        if not other:
            return []
        return [
            "These policies were in force where it comes from, and are not the same here: "
            f"{', '.join(other[:_MOST_NAMES])}."
        ]

    def by_hand(
        self,
        owner: Owner,
        wanted: NewRoute,
        base: ModelCard,
        by: str,
        at_us: int,
    ) -> Step:
        """A route that somebody sets in such an environment stands on the same evidence."""
        adapter = None
        if wanted.adapter:
            adapter = self.adapters.get(*owner, wanted.adapter, base.digest)
            self.adapters.signatures.check(adapter)
        revision = self._revision(owner[0], base, adapter, at_us)
        found = check(revision, wanted.force, wanted.accept_licence)
        return Step(self._promotion(owner, wanted, base, adapter, found, by, at_us), base, None)

    def shared(
        self, owner: Owner, wanted: NewPromotion, came: Arrived | None = None
    ) -> Promotion | None:
        """The promotion that is shared now, if it is of what is asked for again. What came from
        elsewhere need not come again for that."""
        last = self.store.last_promotion(*owner, wanted.alias)
        if last is None or last.state is not PromotionState.SHARING:
            return None
        if came is not None:
            revision = (came.base.digest, came.adapter.digest)
            return last if (last.bundle.base, last.bundle.adapter) == revision else None
        if last.elsewhere is not None:
            return last if wanted.source is None else None
        source = wanted.source or last.source
        if source is None:
            return None
        route = self.store.route(owner[0], source, wanted.alias)
        is_same = route is not None and (route.base_digest, route.adapter_digest) == (
            last.bundle.base,
            last.bundle.adapter,
        )
        return last if is_same else None

    def last(self, owner: Owner, alias: str) -> Promotion:
        """What a rollback takes back. Raises `CONFLICT` where nothing is known of before."""
        found = self.store.last_promotion(*owner, alias)
        if found is not None:
            return found
        if self.store.route(*owner, alias) is None:
            raise _no_route(alias, owner[1])
        raise UserError(
            Code.CONFLICT,
            f"What {alias} in {owner[1]} led to before is not known, as nothing was promoted: set "
            "it with `freehold route set`.",
        )

    def _from_here(
        self, owner: Owner, wanted: NewPromotion, at_us: int
    ) -> tuple[Environment, Revision, None]:
        tenant_id, environment = owner
        before = self._before(environment)
        source = wanted.source or before
        if source is environment:
            raise UserError(Code.CONFLICT, f"It comes from {source} already.", param="source")
        route = self._led(tenant_id, source, wanted.alias)
        base = self.adapters.base(route.base_digest or "")
        adapter = self._adapter(route, source)
        skipped = before if before is not source else None
        return source, self._revision(tenant_id, base, adapter, at_us, skipped), None

    def _from_elsewhere(
        self, owner: Owner, alias: str, came: Arrived, at_us: int
    ) -> tuple[Environment, Revision, Gate | None]:
        """With its gate, where that is not known here yet."""
        gates = self.store.gates_of(owner[0], came.base.digest, came.adapter.digest)
        trusted = [each for each in gates if deciding([each], self._trusts) is not None]
        decided = came.gate if known(came.gate, trusted) is None else None
        if decided is not None:
            trusted.append(decided)
            trusted.sort(key=lambda each: each.made_at_us, reverse=True)
        gate = trusted[0]
        days = self.adapters.signatures.gate_days
        revision = Revision(
            came.base,
            came.adapter,
            gate,
            self._skipped(owner, alias, came),
            too_old(gate, days, at_us),
        )
        return came.about.environment, revision, decided

    def _skipped(self, owner: Owner, alias: str, came: Arrived) -> Environment | None:
        """Of the environments before the target, whether they are served here or there, the last:
        where it served in none such, neither here nor there."""
        tenant_id, environment = owner
        served = {*self.environments, *came.about.environments}
        order = list(Environment)
        earlier = [each for each in order[: order.index(environment)] if each in served]
        if not earlier or order.index(came.about.environment) >= order.index(earlier[-1]):
            return None
        route = self.store.route(tenant_id, earlier[-1], alias)
        revision = (came.base.digest, came.adapter.digest)
        is_here = route is not None and (route.base_digest, route.adapter_digest) == revision
        return None if is_here else earlier[-1]

    def _check_new(self, owner: Owner, alias: str, revision: Revision) -> None:
        there = self.store.route(*owner, alias)
        digest = None if revision.adapter is None else revision.adapter.digest
        if there is not None and (there.base_digest, there.adapter_digest) == (
            revision.base.digest,
            digest,
        ):
            raise UserError(
                Code.CONFLICT,
                f"{alias} in {owner[1]} leads to the same already: see `freehold route show`.",
            )

    def _check_signed(self, came: Arrived) -> None:
        signatures = self.adapters.signatures
        reason = signatures.why_not(came.adapter, [*signatures.of(came.adapter), *came.signatures])
        if reason is not None:
            raise UserError(
                Code.FILE_REFUSED,
                f"{came.adapter.name} cannot be served: {reason}. Sign it where it comes from, "
                "with `freehold adapter sign`, and have it exported anew.",
                param="adapter",
            )

    def _trusts(self, key: str, at_us: int) -> bool:
        return self.adapters.signatures.is_installation(key, at_us)

    def _check_judge(self, owner: Owner, judge: str | None) -> None:
        if judge is None:
            return
        if self.store.route(*owner, judge) is None:
            raise _no_route(judge, owner[1])
        tenant = self.store.tenant(owner[0])
        if tenant is None or not tenant.audit_content:
            raise UserError(
                Code.CONFLICT,
                "A judge reads what was said, and nothing of that is kept: turn it on with "
                "`freehold tenant set --audit-content on`, or leave --judge out.",
                param="watch",
            )

    def _before(self, environment: Environment) -> Environment:
        """The one that comes before, of those that are served."""
        order = list(Environment)
        earlier = [each for each in order[: order.index(environment)] if each in self.environments]
        return earlier[-1] if earlier else environment

    def _led(self, tenant_id: str, environment: Environment, alias: str) -> Route:
        found = self.store.route(tenant_id, environment, alias)
        if found is None:
            raise _no_route(alias, environment)
        if found.base_digest is None:
            raise UserError(
                Code.INVALID_VALUE,
                f"{alias} is answered by an upstream, whose models are not promoted: name it in "
                "the settings of that environment.",
                param="alias",
            )
        return found

    def _adapter(self, route: Route, source: Environment) -> Adapter | None:
        if route.adapter_digest is None:
            return None
        return self.adapters.get(
            route.tenant_id, source, route.adapter_digest, route.base_digest or ""
        )

    def _revision(
        self,
        tenant_id: str,
        base: ModelCard,
        adapter: Adapter | None,
        at_us: int,
        skipped: Environment | None = None,
    ) -> Revision:
        digest = None if adapter is None else adapter.digest
        gates = self.store.gates_of(tenant_id, base.digest, digest)
        gate = deciding(gates, self._trusts)
        days = self.adapters.signatures.gate_days
        return Revision(base, adapter, gate, skipped, too_old(gate, days, at_us))

    def _brought(self, adapter: Adapter, environment: Environment, at_us: int) -> Adapter | None:
        """As the environment will call it: its name may stand for another there."""
        there = replace(adapter, environment=environment)
        if self.adapters.here(there) is not None:
            return None
        name = self.adapters.free_name(there)
        return replace(there, id=new_id("adp"), name=name, added_at_us=at_us)

    def _limits(
        self, owner: Owner, theirs: Sequence[Limit], by: str, at_us: int
    ) -> tuple[Limit, ...]:
        """Of those of an environment as a whole, what the target has none of its kind of."""
        mine = self._limits_of(*owner)
        there = {(each.measure, each.period, each.is_own) for each in mine}
        return tuple(
            replace(each, id=new_id("lim"), environment=owner[1], set_at_us=at_us, set_by=by)
            for each in theirs
            if (each.measure, each.period, each.is_own) not in there
        )

    def _limits_of(self, tenant_id: str, environment: Environment) -> list[Limit]:
        return [each for each in self.store.limits(tenant_id) if each.is_of_all_in(environment)]

    def _told(self, came: Arrived) -> list[Limit]:
        """What a file tells of limits is the tenant's own here, whoever set it there: of two of a
        kind the one that allows less."""
        about = came.about
        is_money = any(each.measure is Measure.MONEY for each in about.limits)
        if is_money and about.currency != self.currency:
            raise UserError(
                Code.CONFLICT,
                f"Its limits are in {about.currency}, and this installation counts in "
                f"{self.currency}: leave --with-limits out, and set them with `freehold limit "
                "set`.",
                param="with_limits",
            )
        least: dict[tuple[Measure, Period], int] = {}
        for each in about.limits:
            kind = each.measure, each.period
            least[kind] = min(each.amount, least.get(kind, each.amount))
        place = came.adapter.tenant_id, about.environment, None
        return [Limit("", *place, *kind, amount, True, 0) for kind, amount in least.items()]

    def _promotion(
        self,
        owner: Owner,
        wanted: NewPromotion | NewRoute,
        base: ModelCard,
        adapter: Adapter | None,
        found: Evidence,
        by: str,
        at_us: int,
    ) -> Promotion:
        """Whole, and set by hand."""
        return Promotion(
            id=new_id("pro"),
            tenant_id=owner[0],
            environment=owner[1],
            source=None,
            alias=wanted.alias,
            adapter=None if adapter is None else adapter.name,
            bundle=self._bundle(owner[0], base, adapter),
            gate=found.gate,
            forced=wanted.force if found.overridden else None,
            overridden=found.overridden,
            accepted=found.accepted,
            share=1.0,
            watch=Watch(),
            state=PromotionState.WHOLE,
            before=None,
            made_at_us=at_us,
            made_by=by,
            whole_at_us=at_us,
        )

    def _bundle(self, tenant_id: str, base: ModelCard, adapter: Adapter | None) -> Bundle:
        manifest = None if adapter is None else adapter.manifest
        mine = self.store.policies(tenant_id)[:_MOST_NAMES]
        return Bundle(
            base=base.digest,
            adapter=None if adapter is None else adapter.digest,
            tokenizer=tokenizer_digest(base),
            template=base.chat_template_digest,
            dataset=None if manifest is None else manifest.dataset_digest,
            policies={each.name: each.digest for each in mine},
        )


def _no_route(alias: str, environment: Environment) -> UserError:
    return UserError(
        Code.NOT_FOUND,
        f"There is no route {alias[:80]!r} in {environment}: see `freehold route list --env "
        f"{environment}`.",
    )
