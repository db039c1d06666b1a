"""A training job as it is asked for: checked, told what it will take, and written as its spec."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from freehold.catalog.adapters import NAME, Adapters
from freehold.catalog.checkpoint import SHARED_BASE
from freehold.catalog.datasets import Datasets
from freehold.catalog.shape import facts_of
from freehold.catalog.store import ModelStore
from freehold.core.binding import Environment
from freehold.core.clock import Clock
from freehold.core.dataset import HELD_OUT, TRAIN, Dataset, DatasetKind
from freehold.core.errors import Code, UserError
from freehold.core.facts import ModelFacts
from freehold.core.job import Job, JobKind, JobState
from freehold.core.limit import Measure, window
from freehold.core.model import ModelCard, Task
from freehold.core.plan import Tuning as Run
from freehold.core.words import lasting, size
from freehold.deploy.probe import read_machine
from freehold.operate.jobs.estimate import (
    Estimate,
    Speed,
    estimate,
    measured_speed,
    probed_speed,
    seconds_for,
)
from freehold.store.sql import SqlStore

Owner = tuple[str, Environment]
_RANK = 16
# Examples to see, repeated ones counted again, and how often one is shown at most.
_TO_SEE = {"sft": (1500, 10), "dpo": (600, 3)}
_TOKENS_A_WORD, _BYTES_A_TOKEN = 1.4, 4
_LOOKED_AT = 50
_MOST_TOKENS = 2048  # of an example, where nobody says


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is None is chosen. `max_cost` in the settings' currency."""

    dataset: str
    base: str
    name: str | None = None
    method: str | None = None
    bits: int | None = None
    objective: str | None = None
    rank: int | None = None
    learning_rate: float | None = None
    epochs: int | None = None
    max_tokens: int | None = None
    seed: int | None = None
    max_seconds: float | None = None
    max_memory_bytes: int | None = None
    max_cost: float | None = None
    trainer: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    name: str
    spec: Mapping[str, Any]
    estimate: Estimate
    currency: str
    notes: tuple[str, ...] = ()  # of the data, before time is spent on them

    def plain(self) -> dict[str, Any]:
        spec = {name: self.spec[name] for name in _TOLD}
        told = {"name": self.name, "currency": self.currency, **asdict(self.estimate), **spec}
        return {**told, "notes": list(self.notes)}


_TOLD = (
    "base",
    "dataset",
    "objective",
    "bits",
    "trainer",
    "epochs",
    "max_seconds",
    "max_memory_bytes",
)
# What of a spec an adapter's bytes come from.
_DECIDES = (
    "base", "dataset", "objective", "bits", "rank", "alpha", "targets", "learning_rate", "epochs",
    "max_tokens", "batch_tokens", "seed", "trainer",
)  # fmt: skip


class Tuning:
    """`micro_per_hour`: what the machine costs, None where nobody knows. `threads`: what a job
    may use of the cores, None for all. Everything may block."""

    def __init__(
        self,
        home: Path,
        store: SqlStore,
        models: ModelStore,
        adapters: Adapters,
        datasets: Datasets,
        clock: Clock,
        currency: str,
        micro_per_hour: int | None,
        threads: int | None,
    ) -> None:
        self._home = home
        self._store = store
        self._models = models
        self._adapters = adapters
        self._datasets = datasets
        self._clock = clock
        self._currency = currency
        self._micro_per_hour = micro_per_hour
        self._threads = threads

    def prepare(self, owner: Owner, asked: Mapping[str, Any]) -> Prepared:
        """`asked` has the fields of `Wanted`. Raises `UserError` for what cannot be trained, or
        takes more than it may."""
        wanted = Wanted(**asked)
        dataset = self._datasets.get(*owner, wanted.dataset)
        base = self._adapters.base(wanted.base)
        shape = self._shape(base)
        objective = _objective(wanted, dataset)
        bits = _bits(wanted)
        epochs = wanted.epochs or _epochs(objective, dataset.train)
        files = self._datasets.files(dataset)
        tokens = self._tokens(dataset, files) * epochs
        trainer = _trainer(wanted, base)
        run = Run(1, tokens, "qlora" if bits else "lora", wanted.rank or _RANK)
        before = self._store.jobs(*owner, _LOOKED_AT, kind=JobKind.TUNE)
        speed = self._speed(before, base, shape, trainer)
        found = estimate(shape, run, speed, self._micro_per_hour, trainer)
        self._check(owner, wanted, found)
        spec = {
            "base": base.digest,
            "base_path": str(self._base_path(base)),
            "train": str(files / TRAIN),
            "held_out": str(files / HELD_OUT),
            "dataset": dataset.digest,
            "names": {"base": base.name, "dataset": f"{dataset.name}@{dataset.version}"},
            "data_kind": dataset.kind.value,
            "objective": objective,
            "bits": bits,
            "rank": wanted.rank,
            "alpha": None,
            "targets": "all-linear",
            "learning_rate": wanted.learning_rate,
            "epochs": epochs,
            "max_tokens": wanted.max_tokens,
            "batch_tokens": None,
            "seed": wanted.seed or 0,
            "trainer": trainer,
            "max_seconds": self._seconds(wanted),
            "max_memory_bytes": wanted.max_memory_bytes,
            "licences": {"base": base.licence.spdx, "dataset": dataset.licence},
        }
        most = min(wanted.max_tokens or _MOST_TOKENS, base.context_length or _MOST_TOKENS)
        notes = [
            *self._same(owner, before, spec),
            *_notes(dataset, self._datasets.report(dataset) or {}, most),
        ]
        name = self._name(owner, wanted, dataset)
        return Prepared(name, spec, found, self._currency, tuple(notes))

    def _same(self, owner: Owner, before: Sequence[Job], spec: Mapping[str, Any]) -> Iterator[str]:
        """The same bytes are not kept twice, which is better known before than after."""
        for job in before:
            adapter = str((job.result or {}).get("adapter", ""))
            is_same = all(job.spec.get(name) == spec[name] for name in _DECIDES)
            if is_same and adapter and self._store.adapters_called(*owner, adapter):
                yield (
                    f"{adapter} was trained just so by {job.id}, and the same adapter is not kept "
                    "twice: use that, or choose another --seed."
                )
                return

    def _shape(self, base: ModelCard) -> ModelFacts:
        """Where its files do not tell it, what its card does is enough for an estimate."""
        if base.task is not Task.CHAT:
            raise UserError(
                Code.INVALID_VALUE,
                f"{base.name} answers no chats, so that no adapter for it is trained here: choose "
                "a chat model as the base.",
                param="base",
            )
        try:
            return facts_of(base, self._models)
        except UserError:
            return _of_card(base)

    def _tokens(self, dataset: Dataset, files: Path) -> int:
        """About how many there are to learn from."""
        lengths = (self._datasets.report(dataset) or {}).get("lengths", {})
        total: int | None = lengths.get("total")
        if total is None:
            return max(1, int((files / TRAIN).stat().st_size) // _BYTES_A_TOKEN)
        words = 1 if lengths.get("unit") == "tokens" else _TOKENS_A_WORD
        share = dataset.train / max(1, dataset.train + dataset.held_out)
        return max(1, round(total * words * share))

    def _speed(
        self, before: Sequence[Job], base: ModelCard, shape: ModelFacts, trainer: str
    ) -> Speed:
        """By the newest job here on this base, else on any, else by what the cores multiply."""
        done = [each for each in before if _is_measured(each, trainer)]
        for job in sorted(done, key=lambda each: each.spec["base"] != base.digest):
            with contextlib.suppress(UserError):  # a base that was removed since
                result, card = job.result or {}, self._models.get(job.spec["base"])
                of = shape if card.digest == base.digest else self._shape(card)
                method = "qlora" if job.spec.get("bits") else "lora"
                run = Run(1, int(result["tokens"]), method)
                return measured_speed(of, run, float(result["seconds"]), job.id)
        return probed_speed(read_machine(), self._threads, trainer)

    def _check(self, owner: Owner, wanted: Wanted, found: Estimate) -> None:
        if wanted.max_cost is not None and found.cost is None:
            raise UserError(
                Code.PRICE_UNKNOWN,
                "Nobody said what this machine costs: set prices.machine.per_hour in the settings, "
                "or leave --max-cost out.",
            )
        limits = [
            ("", lasting, found.seconds, self._seconds(wanted), "--max-time"),
            (" of memory", size, found.memory_bytes, wanted.max_memory_bytes, "--max-memory"),
        ]
        for what, told, needed, most, option in limits:
            if most is not None and needed > most:
                raise UserError(
                    Code.LIMIT_REACHED,
                    f"It takes about {told(needed)}{what}, and may take {told(most)}: allow more "
                    f"({option}, --max-cost), choose a smaller base, or fewer examples or epochs.",
                )
        available = read_machine().available_bytes
        if found.memory_bytes > available:
            raise UserError(
                Code.LIMIT_REACHED,
                f"It takes about {found.memory_bytes / 1e9:,.1f} GB of memory, and "
                f"{available / 1e9:,.1f} GB are free: choose a smaller base, or --method qlora.",
            )
        self._check_budget(owner, found)

    def _check_budget(self, owner: Owner, found: Estimate) -> None:
        """Of the tenant and of its environment, as far as what was used is written."""
        tenant_id, environment = owner
        now_us = self._clock.wall_us()
        for limit in self._store.limits(tenant_id):
            is_meant = limit.environment in (None, environment) and limit.subject is None
            if limit.measure is not Measure.MONEY or not is_meant:
                continue
            left = limit.amount - self._store.spent(tenant_id, limit, window(limit.period, now_us))
            if found.cost is not None and found.cost > left:
                raise UserError(
                    Code.BUDGET_EXCEEDED,
                    f"It costs about {found.cost / 1e6:,.2f} {self._currency}, and the budget of "
                    f"the {limit.period} has {max(left, 0) / 1e6:,.2f} left: see `freehold limit "
                    "list`.",
                )

    def _seconds(self, wanted: Wanted) -> float | None:
        """What time and money allow, whichever ends first."""
        allowed = [] if wanted.max_seconds is None else [wanted.max_seconds]
        if wanted.max_cost is not None and self._micro_per_hour:
            allowed.append(seconds_for(wanted.max_cost, self._micro_per_hour))
        return min(allowed, default=None)

    def _name(self, owner: Owner, wanted: Wanted, dataset: Dataset) -> str:
        if wanted.name is None:
            return next(each for each in _names(dataset) if not self._is_taken(owner, each))
        if not NAME.match(wanted.name):
            raise UserError(
                Code.INVALID_VALUE,
                f"{wanted.name[:80]!r} cannot be an adapter's name: use letters, digits, . _ -",
                param="name",
            )
        if self._is_taken(owner, wanted.name):
            raise UserError(
                Code.CONFLICT,
                f"{wanted.name} is an adapter already, or what a job makes: choose another name.",
                param="name",
            )
        return wanted.name

    def _is_taken(self, owner: Owner, name: str) -> bool:
        making = (
            each.name for each in self._store.jobs(*owner, _LOOKED_AT) if not each.state.has_ended
        )
        return name in making or bool(self._store.adapters_called(*owner, name))

    def _base_path(self, base: ModelCard) -> Path:
        """Its file, or a folder in which its files have their names."""
        files = self._models.files(base)
        if len(files) == 1:
            return self._models.path(base)
        folder = self._home / "cache" / "bases" / base.digest.partition(":")[2]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, path in files.items():
            link = folder / name
            if not link.exists():
                link.unlink(missing_ok=True)
                link.symlink_to(path)
        return folder


def _notes(dataset: Dataset, report: Mapping[str, Any], most: int) -> Iterator[str]:
    for each in report.get("needs_acceptance", ()):
        why = f", let in because “{dataset.accepted}”" if dataset.accepted else ""
        yield f"The data hold {each}{why}."
    yield from report.get("notes", ())
    lengths = report.get("lengths", {})
    if lengths.get("median", 0) > most:
        yield (
            f"Half of the examples have more than {lengths['median'] - 1:,} {lengths['unit']}, and "
            f"what has more than {most:,} tokens is left out: nothing is trained where that is "
            "more than half."
        )
    if find_spec("torch") is None:
        yield "Training needs PyTorch, which is not installed here: install freehold[tune] first."


def _of_card(card: ModelCard) -> ModelFacts:
    return ModelFacts(
        card.name, card.name, card.parameters / 1e9, card.parameters / 1e9, None, None, None,
        None, None, None, card.context_length, card.architecture, card.licence.spdx,
        card.licence.commercial_use, None, None, (), (),
    )  # fmt: skip


def _names(dataset: Dataset) -> Iterator[str]:
    first = f"{dataset.name[:80]}-v{dataset.version}"
    yield first
    number = 2
    while True:
        yield f"{first}-{number}"
        number += 1


def _is_measured(job: Job, trainer: str) -> bool:
    is_done = job.state is JobState.DONE
    is_alike = job.spec.get("trainer", "freehold") == trainer
    return (
        is_done and is_alike and all((job.result or {}).get(name) for name in ("tokens", "seconds"))
    )


def _trainer(wanted: Wanted, base: ModelCard) -> str:
    """Our own where it computes the base's family."""
    if wanted.trainer == "trl" and base.format == "gguf":
        raise UserError(
            Code.INVALID_VALUE,
            f"{base.name} is a GGUF file, and TRL trains on safetensors: pull the checkpoint that "
            "it was made of, or leave --trainer out.",
            param="trainer",
        )
    if wanted.trainer not in (None, "freehold", "trl"):
        raise UserError(
            Code.INVALID_VALUE, "trainer is neither freehold nor trl: name one.", param="trainer"
        )
    is_own = base.format == "gguf" or base.architecture in SHARED_BASE
    return wanted.trainer or ("freehold" if is_own else "trl")


def _objective(wanted: Wanted, dataset: Dataset) -> str:
    fitting = "dpo" if dataset.kind is DatasetKind.PREFERENCE else "sft"
    if wanted.objective not in (None, fitting):
        raise UserError(
            Code.INVALID_VALUE,
            f"{dataset.name} holds {dataset.kind} examples, from which {fitting} learns: leave "
            "--objective out, or choose another dataset.",
            param="objective",
        )
    return fitting


def _bits(wanted: Wanted) -> int | None:
    if wanted.method == "lora" and wanted.bits is not None:
        raise UserError(
            Code.INVALID_VALUE,
            "lora trains beside the base as it is: choose --method qlora for a base in "
            f"{wanted.bits} bits, or leave --bits out.",
            param="bits",
        )
    return 4 if wanted.method == "qlora" and wanted.bits is None else wanted.bits


def _epochs(objective: str, examples: int) -> int:
    to_see, most = _TO_SEE[objective]
    return max(1, min(-(-to_see // max(1, examples)), most))
