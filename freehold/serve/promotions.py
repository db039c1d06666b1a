"""How a revision comes from one environment into the next, and back: what is checked, what
comes along, and where requests go then."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from freehold.catalog.adapters import Adapters
from freehold.catalog.evidence import Evidence, Revision, check
from freehold.catalog.parity import tokenizer_digest
from freehold.config.schema import Name
from freehold.core.adapter import Adapter
from freehold.core.binding import Environment, Route
from freehold.core.errors import Code, UserError
from freehold.core.gate import Gate
from freehold.core.ids import new_id
from freehold.core.limit import Limit
from freehold.core.model import ModelCard
from freehold.core.promotion import GATED, Bundle, Promotion, PromotionState, Watch
from freehold.serve.routes import NewRoute, Reason, Reference, Step
from freehold.store.sql import SqlStore

_MOST_NAMES = 100


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
    """What the alias leads to in `source` shall be let into the environment: with `share` of a
    hundred of its requests, or all. The same again changes the share. `force` says why although
    something speaks against it, `accept_licence` why licences that need it allow this use;
    `with_limits`: limits of the source environment come along where there are none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alias: Name
    source: Environment | None = None
    share: Annotated[float, Field(gt=0, le=100)] = 100.0
    force: Reason | None = None
    accept_licence: Reason | None = None
    with_limits: bool = False
    watch: NewWatch = NewWatch()
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

    def step(
        self, owner: tuple[str, Environment], wanted: NewPromotion, by: str, at_us: int
    ) -> Step:
        """`CONFLICT` for what is there already; else as `catalog.evidence.check`."""
        tenant_id, environment = owner
        if environment not in GATED:
            raise UserError(
                Code.CONFLICT,
                f"{environment} is where revisions come from: name staging or prod.",
                param="environment",
            )
        source = wanted.source or self._before(environment)
        if source is environment:
            raise UserError(Code.CONFLICT, f"It comes from {source} already.", param="source")
        route = self._led(tenant_id, source, wanted.alias)
        base = self.adapters.base(route.base_digest or "")
        adapter = self._adapter(route, source)
        skipped = self._before(environment)
        revision = Revision(
            base,
            adapter,
            self._gate(tenant_id, base, adapter),
            skipped if skipped is not source else None,
        )
        there = self.store.route(tenant_id, environment, wanted.alias)
        if there is not None and (there.base_digest, there.adapter_digest) == (
            route.base_digest,
            route.adapter_digest,
        ):
            raise UserError(
                Code.CONFLICT,
                f"{wanted.alias} in {environment} leads to the same already: see `freehold route "
                "show`.",
            )
        found = check(revision, wanted.force, wanted.accept_licence)
        if adapter is not None:
            self.adapters.signatures.check(replace(adapter, environment=environment))
        brought = None if adapter is None else self._brought(adapter, environment, at_us)
        self._check_judge(owner, wanted.watch.judge)
        limits = self._limits(owner, source, by, at_us) if wanted.with_limits else ()
        promotion = self._promotion(owner, wanted, base, adapter, found, by, at_us)
        promotion = replace(
            promotion,
            source=source,
            bundle=replace(promotion.bundle, limits=tuple(each.id for each in limits)),
            watch=wanted.watch.watch(),
        )
        if wanted.share < 100:
            promotion = replace(
                promotion,
                share=wanted.share / 100,
                state=PromotionState.SHARING,
                whole_at_us=None,
            )
        return Step(promotion, base, brought, limits)

    def by_hand(
        self,
        owner: tuple[str, Environment],
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
        gate = self._gate(owner[0], base, adapter)
        found = check(Revision(base, adapter, gate), wanted.force, wanted.accept_licence)
        return Step(self._promotion(owner, wanted, base, adapter, found, by, at_us), base, None)

    def shared(self, owner: tuple[str, Environment], wanted: NewPromotion) -> Promotion | None:
        """The promotion that is shared now, if it is of what is asked for again."""
        last = self.store.last_promotion(*owner, wanted.alias)
        if last is None or last.state is not PromotionState.SHARING:
            return None
        source = wanted.source or last.source
        if source is None:
            return None
        route = self.store.route(owner[0], source, wanted.alias)
        is_same = route is not None and (route.base_digest, route.adapter_digest) == (
            last.bundle.base,
            last.bundle.adapter,
        )
        return last if is_same else None

    def last(self, owner: tuple[str, Environment], alias: str) -> Promotion:
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

    def _check_judge(self, owner: tuple[str, Environment], judge: str | None) -> None:
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

    def _gate(self, tenant_id: str, base: ModelCard, adapter: Adapter | None) -> Gate | None:
        digest = None if adapter is None else adapter.digest
        return self.store.gate_of(tenant_id, base.digest, digest)

    def _brought(self, adapter: Adapter, environment: Environment, at_us: int) -> Adapter | None:
        """As the environment will call it: its name may stand for another there."""
        there = self.store.adapters_called(adapter.tenant_id, environment, adapter.digest)
        if any(each.base_digest == adapter.base_digest for each in there):
            return None
        short = adapter.digest.partition(":")[2][:8]
        names = (adapter.name, f"{adapter.name[:90]}-{short}")
        for name in names:
            if not self.store.adapters_called(adapter.tenant_id, environment, name):
                return replace(
                    adapter,
                    id=new_id("adp"),
                    environment=environment,
                    name=name,
                    added_at_us=at_us,
                )
        raise UserError(
            Code.CONFLICT,
            f"Other adapters in {environment} are called {' and '.join(names)}: remove one, with "
            "`freehold adapter rm`.",
        )

    def _limits(
        self, owner: tuple[str, Environment], source: Environment, by: str, at_us: int
    ) -> tuple[Limit, ...]:
        """Of the source environment as a whole, where the target has none of its kind."""
        found = self.store.limits(owner[0])
        there = {(each.measure, each.period, each.is_own) for each in _whole(found, owner[1])}
        return tuple(
            replace(each, id=new_id("lim"), environment=owner[1], set_at_us=at_us, set_by=by)
            for each in _whole(found, source)
            if (each.measure, each.period, each.is_own) not in there
        )

    def _promotion(
        self,
        owner: tuple[str, Environment],
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
        policies = {
            each.name: f"sha256:{hashlib.sha256(each.text.encode()).hexdigest()}"
            for each in self.store.policies(tenant_id)[:_MOST_NAMES]
        }
        return Bundle(
            base=base.digest,
            adapter=None if adapter is None else adapter.digest,
            tokenizer=tokenizer_digest(base),
            template=base.chat_template_digest,
            dataset=None if manifest is None else manifest.dataset_digest,
            policies=policies,
        )


def _whole(limits: Sequence[Limit], environment: Environment) -> list[Limit]:
    return [each for each in limits if each.environment is environment and each.subject is None]


def _no_route(alias: str, environment: Environment) -> UserError:
    return UserError(
        Code.NOT_FOUND,
        f"There is no route {alias[:80]!r} in {environment}: see `freehold route list --env "
        f"{environment}`.",
    )
