"""Adapters and routes of a home that no gateway serves."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from freehold.catalog.adapters import Adapters
from freehold.catalog.arriving import Arrived, arrived
from freehold.catalog.datasets import Datasets
from freehold.catalog.exporting import Exported, Exporting
from freehold.catalog.lineage import Lineages
from freehold.catalog.signatures import Signatures
from freehold.catalog.store import ModelStore
from freehold.cli.at_rest import paging
from freehold.cli.options.owner import Of
from freehold.cli.reaching import reach
from freehold.config import load
from freehold.config.home import Home
from freehold.config.schema import Settings
from freehold.core.adapter import Adapter
from freehold.core.binding import Environment, Route
from freehold.core.clock import SystemClock
from freehold.core.model import ModelCard
from freehold.core.promotion import GATED, Promotion
from freehold.deploy.autotune import Records, rank_limits, settings_for
from freehold.engines import registry
from freehold.engines.base import LocalModel
from freehold.store.sql import SqlStore

if TYPE_CHECKING:
    from freehold.serve.promotions import NewExport, NewPromotion, Promoting
    from freehold.serve.routes import NewRoute, Place, Step


@dataclass(frozen=True, slots=True)
class Offline:
    """A home that no gateway serves, open under its lock."""

    store: SqlStore
    adapters: Adapters
    datasets: Datasets
    models: ModelStore
    settings: Settings
    owner: tuple[str, Environment]
    cards: Mapping[str, ModelCard]  # by digest

    def every(self) -> Iterator[Adapter]:
        return paging.every(
            lambda count, after: self.adapters.page(*self.owner, count, after or ""),
            lambda adapter: adapter.name,
        )

    def routes(self) -> dict[str, Route]:
        return {route.alias: route for route in self.store.routes(*self.owner)}

    def set_route(self, wanted: "NewRoute") -> Route:
        """The engine that the settings name answers for what it can; the next `freehold
        up` tells it of the adapter."""
        from freehold.serve.routes import resolve

        base, at_us = self.adapters.base(wanted.base), self.now_us()
        place = self._place(base)
        route = resolve(wanted, self.owner, base, self.adapters, place, at_us)
        if self.owner[1] in GATED:
            step = self.promoting().by_hand(self.owner, wanted, base, "local", at_us)
            return self._let_in(step) or route
        self.store.set_route(self.owner[0], route)
        return route

    def promote(self, wanted: "NewPromotion") -> tuple[Promotion, list[str]]:
        """With what should be said of it."""
        at_us = self.now_us()
        if wanted.upload is None:
            return self._promote(wanted, at_us, None), []
        with arrived(self.adapters, self.owner, wanted.upload, at_us) as came:
            notes = self.promoting().notes(self.owner, came)
            return self._promote(wanted, at_us, came), notes

    def _promote(self, wanted: "NewPromotion", at_us: int, came: Arrived | None) -> Promotion:
        promoting = self.promoting()
        shared = promoting.shared(self.owner, wanted, came)
        if shared is not None:
            share = wanted.share / 100
            return self.store.share_promotion(self.owner[0], shared.id, share, at_us).promotion
        step = promoting.step(self.owner, wanted, "local", at_us, came)
        self._let_in(step)
        found = self.store.promotion(*self.owner, step.promotion.id)
        return found or step.promotion

    def promoting(self) -> "Promoting":
        from freehold.serve.promotions import Promoting

        settings = self.settings
        return Promoting(self.store, self.adapters, settings.server.environments, settings.currency)

    def export(self, wanted: "NewExport") -> Exported:
        from freehold.operate.jobs.evaluating import Evaluating

        settings = self.settings
        made = Exporting(
            self.store,
            self.adapters,
            self.lineages,
            Evaluating(load.home().path, self.store, self.datasets).evaluated,
            settings.server.environments,
            settings.currency,
            SystemClock(),
        )
        return made.export(
            self.owner,
            wanted.alias,
            wanted.download,
            lambda environment: None,  # whoever has the home reads all of it
            with_examples=wanted.with_examples,
        )

    def _let_in(self, step: "Step") -> Route | None:
        route = step.route(self._place(step.base), step.promotion.made_at_us)
        came, is_new = step.came, False
        if came is not None:
            is_new = self.adapters.keep(came.adapter, came.folder, came.signatures)
        try:
            return self.store.promote(
                self.owner[0], step.promotion, route, step.brought, step.limits, step.decided
            ).route
        except BaseException:
            if came is not None and is_new:
                self.adapters.take_back(came.adapter)
            raise

    def _place(self, base: ModelCard) -> "Place":
        from freehold.serve.routes import Place

        records = Records(load.home().cache)
        chosen = settings_for(base, self.settings.engines, records)
        engine = registry.create(chosen.default, chosen)
        able = engine.capabilities(LocalModel(base, self.models.path(base)))
        return Place(engine.name, base.name, able)

    def shown(self, adapter: Adapter) -> dict[str, Any]:
        from freehold.serve.admin.adapters import shown_adapter

        return shown_adapter(adapter, self.cards)

    @property
    def lineages(self) -> Lineages:
        return Lineages(self.store, self.models, self.datasets, self.adapters.signatures)

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def verified(self, adapter: Adapter) -> dict[str, Any]:
        from freehold.serve.admin.adapters import shown_verified

        return shown_verified(self.adapters.verified(adapter))

    def signing_keys(self) -> list[dict[str, Any]]:
        from freehold.serve.admin.signing_keys import shown_keys

        return shown_keys(self.adapters.signatures)

    def revoke_key(self, key: str, since: datetime | None) -> dict[str, Any]:
        from freehold.serve.admin.signing_keys import shown_revoked
        from freehold.serve.reading import in_us

        signatures = self.adapters.signatures
        revoked = signatures.revoke(key, in_us(since) or 0)
        return shown_revoked(signatures, revoked, self.store.tenant)

    def shown_route(self, route: Route) -> dict[str, Any]:
        from freehold.serve.admin.routes import shown_route

        return shown_route(route, self.adapters, self.cards)


@contextmanager
def opened(home: Home, of: Of) -> Iterator[Offline]:
    settings = load.settings(home.settings)
    models = ModelStore(home.path)
    with reach.offline(home) as (store, keyring, _):
        limits = rank_limits(settings.engines, Records(home.cache))
        signatures = Signatures(home.secrets / "signing", store, settings.supply, keyring.clock)
        adapters = Adapters(home.path, store, models, signatures, keyring.clock, limits)
        cards = {card.digest: card for card in models.list()}
        datasets = Datasets(home.path, store, keyring.clock)
        yield Offline(store, adapters, datasets, models, settings, of.resting(store), cards)
