"""`/admin/v1/datasets`: what a tenant trains on and measures by."""

import asyncio
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from freehold.catalog.datasets import Wanted
from freehold.core.binding import Environment, Principal
from freehold.core.clock import rfc3339
from freehold.core.dataset import Dataset, DatasetKind
from freehold.serve.admin.paging import PageQuery, reply_page
from freehold.serve.gateway import FromFeedback, Gateway
from freehold.serve.owner import Owner, OwnQuery, owner
from freehold.serve.reading import Time, body_of, in_us, parsed, query
from freehold.serve.routes import Reference
from freehold.serve.wire import Receive, Scope, Send, reply_json


class NewDataset(BaseModel):
    """A dataset whose files were laid into the home: `upload` is the name of the folder
    there, which only who laid it knows. `accept_findings` is why what its report warns of
    may be in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    upload: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    licence: Annotated[str, Field(min_length=1, max_length=100)]
    origin: Annotated[str, Field(min_length=1, max_length=500)]
    accept_findings: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    tenant: Reference | None = None
    environment: Environment | None = None

    def wanted(self) -> Wanted:
        return Wanted(self.upload, self.name, self.licence, self.origin, self.accept_findings)


class FeedbackDataset(BaseModel):
    """A dataset of what people said of answers, in the words of `freehold data from-feedback`:
    of all aliases and times, where none is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    licence: Annotated[str, Field(min_length=1, max_length=100)]
    kind: DatasetKind = DatasetKind.CHAT
    alias: Annotated[str, Field(max_length=128)] | None = None
    since: Time | None = None
    held_out: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    redact: bool = False
    accept_findings: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    tenant: Reference | None = None
    environment: Environment | None = None

    def wanted(self) -> FromFeedback:
        return FromFeedback(
            self.name, self.licence, self.kind, self.alias, in_us(self.since) or 0, self.held_out,
            self.seed, self.redact, self.accept_findings,
        )  # fmt: skip


class DatasetAdmin:
    """Acts inside one tenant and environment."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(PageQuery, scope)
        place = self._owner(scope, principal, asked)
        page = self._gateway.datasets.page
        found = await asyncio.to_thread(page, *place, asked.limit + 1, asked.after)
        await reply_page(send, found, asked.limit, shown_dataset)

    async def add(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = parsed(NewDataset, await body_of(self._gateway, scope, receive, principal, key))
        place = self._owner(scope, principal, asked)
        added = await asyncio.to_thread(self._gateway.datasets.add, *place, asked.wanted())
        await reply_json(send, shown_dataset(added), status=201)

    async def from_feedback(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway = self._gateway
        raw = await body_of(gateway, scope, receive, principal, key)
        asked = parsed(FeedbackDataset, raw)
        place = self._owner(scope, principal, asked)
        await asyncio.to_thread(gateway.ledger.flush)
        collect = gateway.collecting.collect
        added, report = await asyncio.to_thread(collect, *place, asked.wanted())
        await reply_json(send, {**shown_dataset(added), "report": report}, status=201)

    async def get(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        reference = scope["path_params"]["dataset"]
        datasets = self._gateway.datasets
        found = await asyncio.to_thread(datasets.get, *place, reference)
        report = await asyncio.to_thread(datasets.report, found)
        await reply_json(send, {**shown_dataset(found), "report": report})

    async def remove(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        reference = scope["path_params"]["dataset"]
        removed = await asyncio.to_thread(self._gateway.datasets.remove, *place, reference)
        await reply_json(send, shown_dataset(removed))

    def _owner(
        self, scope: Scope, principal: Principal, asked: NewDataset | FeedbackDataset | OwnQuery
    ) -> Owner:
        return owner(self._gateway, scope, principal, asked.tenant, asked.environment)


def shown_dataset(dataset: Dataset) -> dict[str, Any]:
    return {
        "id": dataset.id,
        "name": dataset.name,
        "version": dataset.version,
        "environment": dataset.environment.value,
        "digest": dataset.digest,
        "kind": dataset.kind.value,
        "train": dataset.train,
        "held_out": dataset.held_out,
        "licence": dataset.licence,
        "origin": dataset.origin,
        "accepted_findings": dataset.accepted,
        "created_at": rfc3339(dataset.created_at_us),
        "created_by": dataset.created_by,
    }
