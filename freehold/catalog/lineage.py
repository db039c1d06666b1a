"""Where answers come from: of a route as it is or was, or of one past request, the base, the
adapter, what that was trained on and by whom, how it was found good enough, and who let it serve.

What was removed since is told from what is left of it; what nobody ever said is None.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from freehold.catalog.datasets import Datasets
from freehold.catalog.parity import tokenizer_digest
from freehold.catalog.signatures import Signatures
from freehold.catalog.store import ModelStore, card_of
from freehold.core.adapter import Adapter
from freehold.core.binding import Environment
from freehold.core.clock import rfc3339
from freehold.core.dataset import Dataset
from freehold.core.errors import Code, UserError
from freehold.core.ids import request_of
from freehold.core.job import Job
from freehold.core.lineage import Remains
from freehold.core.model import ModelCard
from freehold.core.promotion import Promotion
from freehold.core.signature import Signature
from freehold.store.datasets import dataset_of
from freehold.store.jobs import job_of
from freehold.store.routing import adapter_of
from freehold.store.sql import SqlStore

Plain = dict[str, Any]
_FIGURES = (
    "tokens", "seconds", "steps", "train_loss", "held_out_loss", "held_out_loss_before",
    "peak_memory_bytes",
)  # fmt: skip
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class _Served:
    """What answered: an alias of an environment, at a time, by digests."""

    tenant_id: str
    environment: Environment
    alias: str
    at_us: int
    base_digest: str | None
    adapter_digest: str | None
    request: str | None = None
    since_us: int | None = None
    set_by: str | None = None


class Lineages:
    """Everything may block."""

    def __init__(
        self, store: SqlStore, models: ModelStore, datasets: Datasets, signatures: Signatures
    ) -> None:
        self._store = store
        self._models = models
        self._datasets = datasets
        self._signatures = signatures

    def of_request(
        self, owner: tuple[str, Environment], request_id: str, alias: str | None = None
    ) -> Plain:
        """Of an answer: by the digests that it was computed with, wherever its alias leads now.
        Raises `NOT_FOUND`, `INVALID_VALUE` where it was asked of another alias."""
        found = self._store.asked(*owner, request_of(request_id))
        if found is None:
            raise UserError(
                Code.NOT_FOUND,
                f"There is no request {request_id[:80]!r} in {owner[1]}: an answer names its own "
                "in `id` and in x-freehold-request-id.",
            )
        if alias is not None and alias != found.alias:
            raise UserError(
                Code.INVALID_VALUE,
                f"This request asked {found.alias} and not {alias[:80]}.",
                param="request",
            )
        led = self._store.led(*owner, found.alias, found.at_us)
        is_same = led is not None and (led.base_digest, led.adapter_digest) == (
            found.base_digest, found.adapter_digest
        )  # fmt: skip
        return self._told(
            _Served(
                *owner,
                found.alias,
                found.at_us,
                found.base_digest,
                found.adapter_digest,
                found.request_id,
                led.at_us if led is not None and is_same else None,
                led.set_by if led is not None and is_same else None,
            )
        )

    def of_alias(self, owner: tuple[str, Environment], alias: str, at_us: int) -> Plain:
        """Of where the alias led then. Raises `NOT_FOUND` where it led nowhere."""
        led = self._store.led(*owner, alias, at_us)
        if led is None or led.is_removed:
            raise UserError(
                Code.NOT_FOUND,
                f"{alias[:80]!r} led nowhere in {owner[1]} then: see `freehold route list`.",
            )
        return self._told(
            _Served(
                *owner,
                alias,
                at_us,
                led.base_digest,
                led.adapter_digest,
                None,
                led.at_us,
                led.set_by,
            )
        )

    def _told(self, served: _Served) -> Plain:
        adapter, removed_us, signed = self._adapter(served)
        manifest = None if adapter is None else adapter.manifest
        job = self._job(served, manifest.job if manifest is not None else None)
        digest = manifest.dataset_digest if manifest is not None else None
        return {
            "alias": served.alias,
            "environment": served.environment.value,
            "at": rfc3339(served.at_us),
            "request": served.request,
            "since": rfc3339(served.since_us),
            "set_by": served.set_by,
            "base": self._base(served.base_digest),
            "adapter": self._shown(served, adapter, removed_us, signed),
            "dataset": None if digest is None else self._dataset(served, digest),
            "job": None if job is None else _job(job),
            "gates": self._gates(served),
            "promotions": self._promotions(served),
        }

    def _base(self, digest: str | None) -> Plain | None:
        """None for a remote one, whose weights nobody proves."""
        if digest is None:
            return None
        try:
            card: ModelCard | None = self._models.get(digest)
            is_stored = True
        except UserError:
            kept = self._store.base(digest)
            card, is_stored = None if kept is None else card_of(kept), False
        if card is None:
            return {"digest": digest, "name": None, "is_stored": False}
        return {
            "digest": digest,
            "name": card.name,
            "is_stored": is_stored,
            "licence": asdict(card.licence),
            "source": card.source,
            "architecture": card.architecture,
            "parameters": card.parameters,
            "quantization": card.quantization,
            "tokenizer_digest": tokenizer_digest(card),
            "template_digest": card.chat_template_digest,
            "added_at": rfc3339(card.added_at_us),
        }

    def _adapter(self, served: _Served) -> tuple[Adapter | None, int | None, Sequence[Signature]]:
        """As it is stored, or as it was when it was removed, and when that was."""
        if served.adapter_digest is None:
            return None, None, ()
        for environment in _first(served.environment):
            found = self._store.adapters_called(
                served.tenant_id, environment, served.adapter_digest
            )
            for each in found:
                if each.base_digest == served.base_digest:
                    return each, None, self._signatures.of(each)
        for left in self._store.left(served.tenant_id, Remains.ADAPTER, served.adapter_digest):
            if left.content["row"]["base_digest"] == served.base_digest:
                signed = [Signature(**each) for each in left.content["signatures"]]
                return adapter_of(left.content["row"]), left.at_us, signed
        return None, None, ()

    def _shown(
        self,
        served: _Served,
        adapter: Adapter | None,
        removed_us: int | None,
        signed: Sequence[Signature],
    ) -> Plain | None:
        if served.adapter_digest is None:
            return None
        if adapter is None:
            return {"digest": served.adapter_digest, "name": None}
        manifest = adapter.manifest
        return {
            "digest": adapter.digest,
            "name": adapter.name,
            "rank": adapter.rank,
            "scaling": adapter.scaling,
            "target_modules": list(adapter.target_modules),
            "config_digest": adapter.config_digest,
            "weights_digest": adapter.weights_digest,
            "size_bytes": adapter.size_bytes,
            "source": adapter.source,
            "added_at": rfc3339(adapter.added_at_us),
            "removed_at": rfc3339(removed_us),
            "tokenizer_digest": manifest.tokenizer_digest if manifest else None,
            "template_digest": manifest.template_digest if manifest else None,
            "dataset_digest": manifest.dataset_digest if manifest else None,
            "recipe": dict(manifest.recipe) if manifest else None,
            "licences": dict(manifest.licences) if manifest else None,
            "made_with": dict(manifest.made_with) if manifest else None,
            "signatures": [
                {
                    "key": each.signature.key,
                    "by": each.by,
                    "holds": each.reason is None,
                    "made_at": rfc3339(each.signature.made_at_us),
                    "made_by": each.signature.made_by,
                }
                for each in self._signatures.checked(adapter, signed)
            ],
        }

    def _dataset(self, served: _Served, digest: str) -> Plain:
        for environment in _first(served.environment):
            found = self._store.dataset(served.tenant_id, environment, digest)
            if found is not None:
                report = self._datasets.report(found) or {}
                return _dataset(found, report.get("needs_acceptance", []), None)
        for left in self._store.left(served.tenant_id, Remains.DATASET, digest):
            return _dataset(dataset_of(left.content["row"]), left.content["findings"], left.at_us)
        return {"digest": digest, "name": None}

    def _job(self, served: _Served, job_id: str | None) -> Job | None:
        if job_id is None:
            return None
        found = (
            self._store.job(served.tenant_id, environment, job_id)
            for environment in _first(served.environment)
        )
        for each in found:
            if each is not None:
                return each
        for left in self._store.left(served.tenant_id, Remains.JOB, job_id):
            return job_of(left.content["row"])
        return None

    def _gates(self, served: _Served) -> list[Plain]:
        """The oldest first: the last one decides."""
        if served.base_digest is None:
            return []
        found = self._store.gates(served.tenant_id, _SHOWN, adapter_digest=served.adapter_digest)
        return [
            {
                "id": each.id,
                "environment": each.environment.value,
                "suite": each.suite_name,
                "suite_digest": each.suite_digest,
                "incumbent_digest": each.incumbent_digest,
                "passed": each.passed,
                "verdicts": [asdict(verdict) for verdict in each.verdicts],
                "job": each.job,
                "made_at": rfc3339(each.made_at_us),
                "made_by": each.made_by,
                "elsewhere": each.elsewhere and asdict(each.elsewhere.signer),
            }
            for each in reversed(found)
            if (each.base_digest, each.adapter_digest)
            == (served.base_digest, served.adapter_digest)
        ]

    def _promotions(self, served: _Served) -> list[Plain]:
        """Of this revision on its way to where it served, the oldest first: those that came by
        then. What another environment calls it is not told."""
        revision = (served.base_digest, served.adapter_digest)
        found = [
            each
            for environment in _up_to(served.environment)
            for each in self._store.promotions(
                served.tenant_id, environment, _SHOWN, adapter=served.adapter_digest
            )
            if (each.bundle.base, each.bundle.adapter) == revision
            and each.made_at_us <= served.at_us
        ]
        return [_promotion(each) for each in sorted(found, key=lambda made: made.made_at_us)]


def _first(environment: Environment) -> Iterator[Environment]:
    """Where something is looked for first, and then: it may have come from another one."""
    yield environment
    yield from (each for each in Environment if each is not environment)


def _up_to(environment: Environment) -> Sequence[Environment]:
    """Those that a revision passes on its way there, and itself."""
    every = list(Environment)
    return every[: every.index(environment) + 1]


def _dataset(dataset: Dataset, findings: Sequence[str], removed_us: int | None) -> Plain:
    shown = dataclasses.asdict(dataset)
    names = ("digest", "name", "version", "licence", "origin", "train", "held_out", "created_by")
    return {
        **{name: shown[name] for name in names},
        "kind": dataset.kind.value,
        "created_at": rfc3339(dataset.created_at_us),
        "removed_at": rfc3339(removed_us),
        "findings": list(findings),
        "accepted": dataset.accepted,
    }


def _promotion(made: Promotion) -> Plain:
    return {
        "id": made.id,
        "environment": made.environment.value,
        "source": None if made.source is None else made.source.value,
        "elsewhere": made.elsewhere and asdict(made.elsewhere),
        "gate": made.gate,
        "forced": made.forced,
        "overridden": list(made.overridden),
        "accepted": made.accepted,
        "share": made.share,
        "state": made.state.value,
        "made_at": rfc3339(made.made_at_us),
        "made_by": made.made_by,
        "ended_at": rfc3339(made.ended_at_us),
        "ended_because": made.ended_because,
        "ended_by": made.ended_by,
    }


def _job(job: Job) -> Plain:
    result: Mapping[str, Any] = job.result or {}
    return {
        "id": job.id,
        "name": job.name,
        "environment": job.environment.value,
        "state": job.state.value,
        "created_by": job.created_by,
        "created_at": rfc3339(job.created_at_us),
        "ended_at": rfc3339(job.ended_at_us),
        "figures": {name: result[name] for name in _FIGURES if result.get(name) is not None},
    }
