"""Whether a revision may serve in staging and prod: on a gate that it passed, on the base that it
was made for, under licences that allow it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from freehold.catalog import licences
from freehold.catalog.parity import check_adapter
from freehold.catalog.signatures import OURS
from freehold.core.adapter import Adapter
from freehold.core.binding import Environment
from freehold.core.clock import rfc3339
from freehold.core.errors import Code, UserError
from freehold.core.gate import Gate
from freehold.core.model import ModelCard

_OWN = ("licenseref-own", "licenseref-proprietary")  # of data: the tenant's, who says so
_SHOWN = 3
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Revision:
    """What is to be let in; `gate` is the newest of it, if there is one, and `is_old` one from
    elsewhere that has been too long ago. `skipped` is an environment that it should have served
    in before."""

    base: ModelCard
    adapter: Adapter | None
    gate: Gate | None
    skipped: Environment | None = None
    is_old: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    gate: str | None
    overridden: tuple[str, ...]
    accepted: str | None  # why a licence that needs a reason allows it


def deciding(gates: Sequence[Gate], is_trusted: Callable[[str, int], bool]) -> Gate | None:
    """Of a revision's, the last decided first: the first that counts. One from elsewhere does as
    long as the keys of those who vouch for it are trusted for what came when it did."""
    for gate in gates:
        there = gate.elsewhere
        if there is None or all(
            is_trusted(each.key, there.came_at_us) for each in (there.signer, there.through)
        ):
            return gate
    return None


def known(new: Gate, gates: Sequence[Gate]) -> Gate | None:
    """The one of these that a gate from elsewhere is: it came before, or was decided here."""
    there = new.elsewhere
    if there is None:
        return None
    for gate in gates:
        if gate.elsewhere is None:
            is_same = there.signer.by == OURS and gate.id == there.gate
        else:
            before = gate.elsewhere
            is_same = (before.signer.key, before.gate) == (there.signer.key, there.gate)
        if is_same:
            return gate
    return None


def too_old(gate: Gate | None, days: int, now_us: int) -> bool:
    """Of one from elsewhere: what was decided here is known to be the last."""
    if gate is None or gate.elsewhere is None:
        return False
    return now_us - gate.made_at_us > days * _DAY_US


def check(revision: Revision, forced: str | None, accepted: str | None) -> Evidence:
    """Raises `UserError`: `ADAPTER_MISMATCH`, which nothing overrides, and what is not given and
    not forced either: `LICENCE_NOT_ACCEPTED`, `GATE_NOT_PASSED`."""
    if revision.adapter is not None:
        check_adapter(revision.adapter, revision.base)
    questioned = list(_licences(revision))
    problems = [] if accepted else questioned
    problems = [*problems, *_gate(revision), *_way(revision)]
    if problems and not forced:
        _, code, sentence = problems[0]
        raise UserError(code, sentence)
    gate = revision.gate
    return Evidence(
        gate.id if gate is not None and gate.passed and not revision.is_old else None,
        tuple(name for name, _, _ in problems),
        accepted if questioned else None,
    )


_Problem = tuple[str, Code, str]


def _licences(revision: Revision) -> Iterator[_Problem]:
    """Of base and data; whose adapter it is nobody knows of one that came without a manifest."""
    base, adapter = revision.base, revision.adapter
    if not (base.licence.commercial_use or base.licence.waiver):
        yield _unlicensed("licence of the base", base.name, base.licence.spdx)
    if adapter is None:
        return
    if adapter.manifest is None:
        yield _unlicensed("licence of the adapter", adapter.name, "nobody knows which, as it "
                          "came without a manifest")  # fmt: skip
        return
    for what, said in adapter.manifest.licences.items():
        if what == "base" or str(said).lower() in _OWN:
            continue
        found = licences.named(None if said is None else str(said))
        if not found.commercial_use:
            yield _unlicensed(f"licence of the {what}", f"the {what} of {adapter.name}", found.spdx)


def _unlicensed(name: str, what: str, licence: str) -> _Problem:
    return (
        name,
        Code.LICENCE_NOT_ACCEPTED,
        f"The licence of {what} does not say that this use is allowed ({licence}): read it, and "
        'say why it is with --accept-licence "…".',
    )


def _gate(revision: Revision) -> Iterator[_Problem]:
    adapter, gate = revision.adapter, revision.gate
    if adapter is None or (gate is not None and gate.passed and not revision.is_old):
        return
    name, code = "gate", Code.GATE_NOT_PASSED
    if gate is not None and gate.passed:
        yield (name, code, f"The gate of {adapter.name} was decided elsewhere on "
               f"{rfc3339(gate.made_at_us)[:10]}, longer ago than supply.gate_days allows: evaluate"
               ' it anew, or say why it may serve all the same with --force "…".')  # fmt: skip
        return
    if gate is None:
        yield (name, code, f"{adapter.name} has passed no gate: evaluate it with `freehold eval`, "
               'or say why it may serve all the same with --force "…".')  # fmt: skip
        return
    failed = [each for each in gate.verdicts if not each.passed]
    told = "; ".join(
        f"{each.name} needs {each.needed} and has {each.found}" for each in failed[:_SHOWN]
    )
    yield (name, code, f"{adapter.name} did not pass its last gate {gate.id} ({told}): train it "
           'anew, or say why it may serve all the same with --force "…".')  # fmt: skip


def _way(revision: Revision) -> Iterator[_Problem]:
    if revision.skipped is not None:
        yield ("environment", Code.CONFLICT, f"It has not served in {revision.skipped} yet: "
               'promote it there first, or say why not with --force "…".')  # fmt: skip
