"""A revision that comes in a file from another installation: all that can be said of it before
anything is changed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from freehold.catalog import revision_file, revision_told
from freehold.catalog.adapters import Adapters, Wanted
from freehold.catalog.blobs import disk_error
from freehold.catalog.bundle import Unreadable
from freehold.catalog.exporting import FILE
from freehold.catalog.parity import check_parity
from freehold.catalog.revision_file import Content
from freehold.catalog.revision_told import About, ToldGate
from freehold.core.adapter import Adapter
from freehold.core.binding import Environment
from freehold.core.errors import Code, UserError
from freehold.core.gate import Elsewhere, Gate
from freehold.core.ids import new_id
from freehold.core.manifest import MANIFEST, Manifest
from freehold.core.model import ModelCard
from freehold.core.signature import Signature, Signer

Owner = tuple[str, Environment]
_AHEAD_US = 600_000_000  # so much may another installation's clock be before ours


@dataclass(frozen=True, slots=True)
class Arrived:
    """A revision whose every file is as a trusted key signed it. `adapter` is as it would be kept
    here, `gate` as it was decided there, for the digests of these very files; `folder` has the
    adapter's files as long as it is open."""

    signer: Signer
    about: About
    base: ModelCard
    adapter: Adapter
    signatures: Sequence[Signature]
    gate: Gate
    folder: Path


@contextmanager
def arrived(adapters: Adapters, owner: Owner, ticket: str, now_us: int) -> Iterator[Arrived]:
    """Of what was laid into the home under this ticket, which is gone afterwards. Raises
    `UserError`: as `revision_file.read`, and `MODEL_NOT_FOUND` for a base that is not here,
    `ADAPTER_MISMATCH` for one that serves otherwise; `FILE_REFUSED` for an adapter that would be
    refused without a revision, and for a gate that is none of its own. Nothing is changed."""
    with adapters.upload(ticket) as upload:
        if not (upload / FILE).is_file():
            raise UserError(Code.NOT_FOUND, "There is no revision in this upload.", param="upload")
        folder = upload / "adapter"
        try:
            folder.mkdir(mode=0o700)
            content = revision_file.read(upload / FILE, folder, adapters.signatures.vouched)
        except OSError as error:
            raise disk_error(error, folder) from None
        about = revision_told.about(content.small[revision_file.ABOUT])
        base = _base(adapters, about)
        adapter = _adapter(adapters, owner, folder, about, content)
        told = revision_told.gate(content.small[revision_file.GATE])
        _check_gate(told, adapter, now_us)
        gate = _gate(adapters, owner, told, content, now_us)
        signatures = _signatures(adapters, adapter, content)
        yield Arrived(content.signer, about, base, adapter, signatures, gate, folder)


def _base(adapters: Adapters, about: About) -> ModelCard:
    try:
        base = adapters.base(about.base.digest)
    except UserError:
        raise UserError(
            Code.MODEL_NOT_FOUND,
            f"Its base {about.base.name} ({about.base.digest[:19]}) is not stored here: pull it "
            f"with `freehold model pull {about.base.source}`, or where that gives another digest "
            "bring its file from there (`freehold model pull file:PATH --keep-format`).",
            param="base",
        ) from None
    there = Manifest(about.base.digest, about.tokenizer_digest, about.template_digest, None)
    check_parity(f"{about.adapter.name} (as it was evaluated)", there, base)
    return base


def _adapter(
    adapters: Adapters, owner: Owner, folder: Path, about: About, content: Content
) -> Adapter:
    """The one that is here already, else as it would be kept."""
    path = folder / MANIFEST
    said = path.read_bytes() if path.exists() else None
    source = f"revision:{content.digest}"
    wanted = Wanted("", about.base.digest, about.adapter.name, source)
    adapter = adapters.examined(owner, folder, wanted, said)
    if adapter.digest != about.adapter.digest:
        raise revision_file.refused("its adapter is not the one that it tells of")
    return adapters.here(adapter) or replace(adapter, name=adapters.free_name(adapter))


def _check_gate(told: ToldGate, adapter: Adapter, now_us: int) -> None:
    if (told.base_digest, told.adapter_digest) != (adapter.base_digest, adapter.digest):
        raise revision_file.refused("its gate is one of another revision")
    if told.made_at_us > now_us + _AHEAD_US:
        raise revision_file.refused(
            "its gate was decided in the future: one of the two clocks is wrong"
        )


def _gate(adapters: Adapters, owner: Owner, told: ToldGate, content: Content, now_us: int) -> Gate:
    decided_by = content.signer
    if told.decided_by is not None:
        try:
            decided_by = adapters.signatures.signer(told.decided_by)
        except Unreadable as error:
            raise revision_file.refused(f"its gate was decided by {error}") from None
    there = Elsewhere(
        decided_by,
        content.signer,
        told.id,
        told.environment,
        now_us,
        revision_told.figures(content.small.get(revision_file.FIGURES)),
    )
    return Gate(
        id=new_id("gat"),
        tenant_id=owner[0],
        environment=owner[1],
        base_digest=told.base_digest,
        adapter_digest=told.adapter_digest,
        suite_name=told.suite_name,
        suite_digest=told.suite_digest,
        incumbent_digest=told.incumbent_digest,
        passed=told.passed,
        verdicts=told.verdicts_as_made(),
        job=told.job,
        made_at_us=min(told.made_at_us, now_us),  # else it would outdo what is decided here next
        made_by=told.made_by,
        elsewhere=there,
    )


def _signatures(adapters: Adapters, adapter: Adapter, content: Content) -> Sequence[Signature]:
    told = revision_told.signatures(content.small.get(revision_file.SIGNATURES))
    try:
        return adapters.signatures.carried(
            adapter, [(each.key, each.bundle, each.manifest) for each in told]
        )
    except Unreadable as error:
        if adapters.here(adapter) is not None:  # by its own right, as somebody added it
            return ()
        raise revision_file.refused(f"the adapter's own signatures do not count: {error}") from None
