"""A revision that served and passed its gate, written into a file for another installation.

Figures leave, and texts do not unless somebody asks for them: neither what was asked and answered
in the evaluation nor phrases that reports quote. Nor do the folders of this machine.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.catalog import revision_file, revision_told
from freehold.catalog.adapters import Adapters
from freehold.catalog.blobs import disk_error
from freehold.catalog.bom import bom, written
from freehold.catalog.evidence import deciding, too_old
from freehold.catalog.lineage import Lineages
from freehold.catalog.parity import tokenizer_digest
from freehold.core.adapter import CONFIG, WEIGHTS, Adapter
from freehold.core.binding import Environment
from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.core.gate import Gate
from freehold.core.manifest import MANIFEST, as_plain
from freehold.core.model import ModelCard
from freehold.store.sql import SqlStore

FILE = "revision.fhr"  # of an upload, and of what is fetched
Owner = tuple[str, Environment]
_QUOTED = re.compile("“.*”", re.DOTALL)
_FOLDER = re.compile("^file:.*/", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What an evaluation measured, and all that it found, with texts; None where those hold words
    of somebody who was forgotten."""

    figures: Mapping[str, Any]
    whole: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Exported:
    adapter: Adapter
    base: ModelCard
    gate: Gate
    digest: str  # of the file
    signed_by: str  # the key's id
    has_figures: bool
    has_examples: bool
    is_remembered: bool  # it was trained on words of somebody who was forgotten


@dataclass(frozen=True, slots=True)
class Exporting:
    """`evaluated` finds the result that a gate came from, by its job; None where it is not here.
    Everything may block."""

    store: SqlStore
    adapters: Adapters
    lineages: Lineages
    evaluated: Callable[[Owner, str], Evaluated | None]
    environments: Collection[Environment]
    currency: str
    clock: Clock

    def export(
        self,
        owner: Owner,
        alias: str,
        ticket: str,
        check_reading: Callable[[Environment], None],
        *,
        with_examples: bool,
    ) -> Exported:
        """Writes what the alias leads to into the folder of the ticket, and leaves it there.
        `check_reading` raises where evaluations of an environment are not for who asks. Raises
        `UserError`, `GATE_NOT_PASSED` among them; then there is no file."""
        base, adapter = self._led(owner, alias)
        path = self.adapters.folder(ticket) / FILE
        gate = self._gate(adapter)
        found = None
        if gate.job is not None and gate.elsewhere is None:
            found = self.evaluated((owner[0], gate.environment), gate.job)
        figures = gate.elsewhere.figures if gate.elsewhere else found and found.figures
        whole = None
        if with_examples:
            check_reading(gate.environment)
            whole = self._whole(gate, adapter, found)
        told = {
            revision_file.ABOUT: self._about(owner, alias, base, adapter),
            revision_file.GATE: revision_told.gate_as_told(gate).model_dump(mode="json"),
            revision_file.FIGURES: figures,
            revision_file.EVALUATION: whole,
        }
        lineage = self._lineage(owner, alias, adapter)
        if not with_examples:
            told, lineage = unquoted(told), unquoted(lineage)
        small = {name: _json(each) for name, each in told.items() if each is not None}
        small[revision_file.BOM] = written(bom(lineage))
        small |= self._of_adapter(adapter)
        with ExitStack() as undo:  # a part of a file, and what is not recorded, do not leave
            undo.callback(path.unlink, missing_ok=True)
            digest = self._written(path, small, adapter)
            self.store.exported(owner[0], adapter, alias, *(("examples",) if with_examples else ()))
            undo.pop_all()
        signatures = self.adapters.signatures
        return Exported(
            adapter, base, gate, digest, signatures.current, figures is not None, with_examples,
            self._is_remembered(adapter),
        )  # fmt: skip

    def _is_remembered(self, adapter: Adapter) -> bool:
        trained_on = None if adapter.manifest is None else adapter.manifest.dataset_digest
        return trained_on is not None and self.store.is_remembered(adapter.tenant_id, trained_on)

    def _whole(self, gate: Gate, adapter: Adapter, found: Evaluated | None) -> Mapping[str, Any]:
        """Evaluations ask for phrases of what the adapter was trained on, too."""
        if found is None or found.whole is None or self._is_remembered(adapter):
            raise UserError(
                Code.NOT_FOUND,
                f"The answers of the evaluation behind {gate.id} are not here (any more), or hold "
                "words of somebody who was forgotten: leave --with-examples out.",
                param="with_examples",
            )
        return found.whole

    def _led(self, owner: Owner, alias: str) -> tuple[ModelCard, Adapter]:
        route = self.store.route(*owner, alias)
        if route is None:
            raise UserError(
                Code.NOT_FOUND,
                f"There is no route {alias[:80]!r} in {owner[1]}: see `freehold route list --env "
                f"{owner[1]}`.",
                param="alias",
            )
        if route.base_digest is None or route.adapter_digest is None:
            raise UserError(
                Code.INVALID_VALUE,
                f"{alias} in {owner[1]} has no adapter that could be exported: a bare base is "
                "pulled where it is to serve, with `freehold model pull`.",
                param="alias",
            )
        adapter = self.adapters.get(*owner, route.adapter_digest, route.base_digest)
        self.adapters.check_sound(adapter)
        self.adapters.signatures.check(adapter)
        return self.adapters.base(route.base_digest), adapter

    def _gate(self, adapter: Adapter) -> Gate:
        signatures = self.adapters.signatures
        found = self.store.gates_of(adapter.tenant_id, adapter.base_digest, adapter.digest)
        gate = deciding(found, signatures.is_installation)
        now_us = self.clock.wall_us()
        if gate is None or not gate.passed or too_old(gate, signatures.gate_days, now_us):
            last = "no gate" if gate is None else f"no gate since {gate.id}"
            raise UserError(
                Code.GATE_NOT_PASSED,
                f"{adapter.name} has passed {last}, and no revision leaves without one: evaluate "
                "it with `freehold eval`.",
                param="alias",
            )
        return gate

    def _lineage(self, owner: Owner, alias: str, adapter: Adapter) -> dict[str, Any]:
        found = self.lineages.of_alias(owner, alias, self.clock.wall_us())
        base, told = found["base"], found["adapter"]
        if told is None or (base["digest"], told["digest"]) != (
            adapter.base_digest, adapter.digest
        ):  # fmt: skip
            raise UserError(
                Code.CONFLICT, f"{alias} was led elsewhere while it was exported: try it again."
            )
        for each in (base, told):
            each["source"] = _unplaced(each.get("source") or "")
        return found

    def _about(self, owner: Owner, alias: str, base: ModelCard, adapter: Adapter) -> dict[str, Any]:
        limits = [
            {"measure": each.measure.value, "period": each.period.value, "amount": each.amount}
            for each in self.store.limits(owner[0])
            if each.is_of_all_in(owner[1])
        ]
        return {
            "version": int(revision_told.VERSION),
            "alias": alias,
            "environment": owner[1].value,
            "environments": [each.value for each in Environment if each in self.environments],
            "base": {"digest": base.digest, "name": base.name, "source": _unplaced(base.source)},
            "adapter": {"digest": adapter.digest, "name": adapter.name},
            "tokenizer_digest": tokenizer_digest(base),
            "template_digest": base.chat_template_digest,
            "policies": {each.name: each.digest for each in self.store.policies(owner[0])},
            "limits": sorted(limits, key=lambda each: (each["measure"], each["period"])),
            "currency": self.currency,
        }

    def _of_adapter(self, adapter: Adapter) -> dict[str, bytes]:
        """What is said of it, with the signatures that hold."""
        signatures = self.adapters.signatures
        held = [
            each.signature
            for each in signatures.checked(adapter, signatures.of(adapter))
            if each.reason is None
        ]
        told = {}
        if adapter.manifest is not None:
            told[revision_file.named(MANIFEST)] = _json(as_plain(adapter.manifest))
        if held:
            made = [{"key": s.key, "bundle": s.bundle, "manifest": s.manifest} for s in held]
            told[revision_file.SIGNATURES] = _json({"signatures": made})
        return told

    def _written(self, path: Path, small: Mapping[str, bytes], adapter: Adapter) -> str:
        files = {CONFIG: adapter.config_digest, WEIGHTS: adapter.weights_digest}
        paths = {name: self.adapters.path(digest) for name, digest in files.items()}
        try:
            return revision_file.write(
                path,
                small,
                paths,
                lambda digests: self.adapters.signatures.vouch(adapter.name, digests),
            )
        except OSError as error:
            raise disk_error(error, path) from None


def unquoted(value: Any) -> Any:
    """Without the phrases that reports quote."""
    if isinstance(value, str):
        return _QUOTED.sub("“…”", value)
    if isinstance(value, dict):
        return {name: unquoted(each) for name, each in value.items()}
    return [unquoted(each) for each in value] if isinstance(value, list) else value


def _unplaced(source: str) -> str:
    """What came from a disk, by its name alone."""
    return _FOLDER.sub("file:", source)


def _json(told: Any) -> bytes:
    return json.dumps(told, sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n"
