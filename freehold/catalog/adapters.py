"""The adapters of tenants: checked against their base, files by digest, rows in the store.

What comes in is laid into a folder of its own under `cache/adapters/` first, with a name
that nobody can guess. Whoever can write there (the command line, on this machine) then
asks for it by that name: no request ever names a path, and none can ask for a file that
somebody else brought.
"""

import contextlib
import dataclasses
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from freehold.catalog import admit, bundle, checkpoint, parity
from freehold.catalog.blobs import digest_of, disk_error
from freehold.catalog.signatures import Checked, Signatures
from freehold.catalog.store import ModelStore
from freehold.core import gguf, peft
from freehold.core.adapter import CONFIG, WEIGHTS, Adapter
from freehold.core.binding import Environment, Route
from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.core.ids import is_digest, new_id
from freehold.core.manifest import MANIFEST, MAX_BYTES, Manifest, read_manifest
from freehold.core.model import ModelCard
from freehold.core.safetensors import Tensor, header_of
from freehold.core.signature import SIGNATURE, Signature
from freehold.store.base import AdapterStore

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_TICKET = re.compile(r"[0-9a-f]{32}\Z")
_MAX_SOURCE = 200
_FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """An adapter to be taken in: `ticket` names the folder that `stage` filled."""

    ticket: str
    base: str  # a stored model's name or digest
    name: str
    source: str
    job: str | None = None  # that made it here


@dataclass(frozen=True, slots=True)
class Verified:
    """An adapter's files and signatures as they are now: `spoilt` says which file is not what
    it was, `kept_out` why no engine is told of it."""

    adapter: Adapter
    spoilt: str | None
    kept_out: str | None
    signatures: tuple[Checked, ...]

    @property
    def holds(self) -> bool:
        is_signed = any(each.reason is None for each in self.signatures)
        return is_signed and self.spoilt is None and self.kept_out is None


class Adapters:
    """One a process; safe from any thread."""

    def __init__(
        self,
        home: Path,
        store: AdapterStore,
        models: ModelStore,
        signatures: Signatures,
        clock: Clock,
        rank_limit: Callable[[ModelCard], peft.RankLimit],
    ) -> None:
        """`rank_limit` is that of the engine that serves a base."""
        self._staging = staging(home)
        self._store = store
        self._models = models
        self.signatures = signatures
        self._clock = clock
        self._rank_limit = rank_limit
        # Between taking files in and the row that needs them nobody may remove them.
        self._changing = threading.Lock()

    def page(
        self, tenant_id: str, environment: Environment, limit: int, after: str = ""
    ) -> Sequence[Adapter]:
        return self._store.adapters(tenant_id, environment, limit, after)

    def get(
        self, tenant_id: str, environment: Environment, reference: str, base_digest: str = ""
    ) -> Adapter:
        """By name or digest. Raises `NOT_FOUND`, alike for what is somebody else's, and
        `CONFLICT` for a digest that stands for several and needs the base beside it."""
        found = self._store.adapters_called(tenant_id, environment, reference)
        if base_digest and is_digest(reference):
            found = [each for each in found if each.base_digest == base_digest] or found
        if not found:
            raise UserError(
                Code.NOT_FOUND,
                f"There is no adapter {reference[:80]!r} in {environment}: see "
                "`freehold adapter list`.",
            )
        if len(found) > 1:
            names = ", ".join(each.name for each in found[:5])
            raise UserError(
                Code.CONFLICT, f"These adapters have the same weights: {names}. Say which by name."
            )
        return found[0]

    def add(self, tenant_id: str, environment: Environment, wanted: Wanted) -> Adapter:
        """Takes in what was staged; the same again changes nothing. Raises `UserError`;
        then nothing is kept, and the staged files are gone either way."""
        with self.upload(wanted.ticket) as folder:
            return self._add(tenant_id, environment, wanted, folder)

    @contextmanager
    def upload(self, ticket: str) -> Iterator[Path]:
        """What was laid into the home under this ticket, which is gone afterwards."""
        folder = self.folder(ticket)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def folder(self, ticket: str) -> Path:
        """What somebody made in the home under this ticket."""
        if not _TICKET.match(ticket):
            raise UserError(Code.INVALID_VALUE, "This is no upload's ticket.", param="upload")
        folder = self._staging / ticket
        if not folder.is_dir():
            raise UserError(
                Code.NOT_FOUND,
                "This upload is not there (any more): give the command again.",
                param="upload",
            )
        return folder

    def take_back(self, adapter: Adapter) -> None:
        """One that was kept for a revision which was not let in after all; what names it
        meanwhile keeps it."""
        with contextlib.suppress(UserError):
            self.remove(adapter.tenant_id, adapter.environment, adapter.name)

    def remove(self, tenant_id: str, environment: Environment, reference: str) -> Adapter:
        """Forgets an adapter, and its files unless another needs them. Raises `CONFLICT`
        naming the routes that lead to it."""
        with self._changing:
            adapter = self.get(tenant_id, environment, reference)
            for file in self._store.remove_adapter(tenant_id, adapter.id) or ():
                self._models.blobs.remove(file)
        return adapter

    def sign(self, adapter: Adapter) -> None:
        """With the key of this installation: whoever asks stands for it. Raises `CONFLICT` for
        one that was changed on the disk."""
        self.check_sound(adapter)
        self.signatures.add(adapter, self.signatures.sign(adapter))

    def check_sound(self, adapter: Adapter) -> None:
        """Raises `CONFLICT` for one that was changed on the disk."""
        spoilt = self._spoilt(adapter)
        if spoilt is not None:
            raise UserError(Code.CONFLICT, f"{spoilt} of {adapter.name}: add the adapter again.")

    def verified(self, adapter: Adapter) -> Verified:
        """Reads every byte again."""
        signatures = self.signatures.of(adapter)
        return Verified(
            adapter,
            self._spoilt(adapter),
            self.signatures.why_not(adapter, signatures),
            tuple(self.signatures.checked(adapter, signatures)),
        )

    def _spoilt(self, adapter: Adapter) -> str | None:
        for name, digest in ((CONFIG, adapter.config_digest), (WEIGHTS, adapter.weights_digest)):
            try:
                is_sound = digest_of(self.path(digest)) == digest
            except OSError:  # gone, unreadable, or a link put in its place
                is_sound = False
            if not is_sound:
                return f"{name} is missing or was changed on the disk"
        return None

    def name_of(self, route: Route) -> str | None:
        """What its owner calls the adapter that it names."""
        if route.adapter_digest is None:
            return None
        found = self._store.adapters_called(
            route.tenant_id, route.environment, route.adapter_digest
        )
        names = [each.name for each in found if each.base_digest == route.base_digest]
        return names[0] if names else None

    def here(self, adapter: Adapter) -> Adapter | None:
        """The same files for the same base, where its environment has them already."""
        found = self._store.adapters_called(adapter.tenant_id, adapter.environment, adapter.digest)
        return next((each for each in found if each.base_digest == adapter.base_digest), None)

    def free_name(self, adapter: Adapter) -> str:
        """Its own, or nearly so where that stands for another in its environment. Raises
        `CONFLICT` where both do."""
        short = adapter.digest.partition(":")[2][:8]
        names = (adapter.name, f"{adapter.name[:90]}-{short}")
        place = adapter.tenant_id, adapter.environment
        for name in names:
            if not self._store.adapters_called(*place, name):
                return name
        raise UserError(
            Code.CONFLICT,
            f"Other adapters in {adapter.environment} are called {' and '.join(names)}: remove "
            "one, with `freehold adapter rm`.",
        )

    def base(self, reference: str) -> ModelCard:
        """A stored model by name or digest."""
        try:
            return self._models.get(reference)
        except UserError as error:
            raise UserError(error.code, error.message, param="base") from None

    def path(self, file: str) -> Path:
        """Where a file of an adapter lies, by its digest."""
        return self._models.blobs.path(file)

    def _add(
        self, tenant_id: str, environment: Environment, wanted: Wanted, folder: Path
    ) -> Adapter:
        if not NAME.match(wanted.name):
            raise UserError(
                Code.INVALID_VALUE,
                f"{wanted.name[:80]!r} cannot be an adapter's name: use letters, digits, . _ -",
                param="name",
            )
        with self._changing:
            said = _beside(folder / MANIFEST, MAX_BYTES)
            adapter = self.examined((tenant_id, environment), folder, wanted, said)
            stored = self._stored(adapter)
            signed = self._signed(stored or adapter, wanted, folder, said)
            made = [] if signed is None else [signed]
            self._keep(stored or adapter, folder, made, is_new=stored is None)
            return stored or adapter

    def examined(
        self, owner: tuple[str, Environment], folder: Path, wanted: Wanted, said: bytes | None
    ) -> Adapter:
        """What a folder's two files are, held against their base and what is `said` of them in a
        manifest. Raises `UserError`; nothing is kept of it."""
        base, manifest = self.base(wanted.base), _manifest(said, wanted.job)
        parity.check_parity(wanted.name, manifest, base)
        lora, digest = self._examined(folder, base)
        return Adapter(
            id=new_id("adp"),
            tenant_id=owner[0],
            environment=owner[1],
            name=wanted.name,
            digest=digest,
            config_digest=digest_of(folder / CONFIG),
            weights_digest=digest_of(folder / WEIGHTS),
            base_digest=base.digest,
            rank=lora.rank,
            scaling=_scaling(lora),
            target_modules=tuple(sorted({each.linear for each in lora.factors})),
            size_bytes=sum((folder / name).stat().st_size for name in (CONFIG, WEIGHTS)),
            source=wanted.source[:_MAX_SOURCE],
            added_at_us=self._clock.wall_us(),
            manifest=manifest,
        )

    def keep(self, adapter: Adapter, folder: Path, signed: Sequence[Signature]) -> bool:
        """Takes in what was examined, and says whether it is new. Raises `CONFLICT` where
        its name was given away meanwhile."""
        with self._changing:
            stored = self._stored(adapter)
            self._keep(stored or adapter, folder, signed, is_new=stored is None)
            return stored is None

    def _signed(
        self, adapter: Adapter, wanted: Wanted, folder: Path, said: bytes | None
    ) -> Signature | None:
        """The signature that it came with, or our own on what a job here made. Raises
        `FILE_REFUSED` for one that does not hold."""
        if wanted.job is not None:
            return self.signatures.sign(adapter)
        text = _beside(folder / SIGNATURE, bundle.MAX_BYTES)
        if text is None:
            return None
        return self.signatures.accept(adapter, text, None if said is None else said.decode())

    def _stored(self, adapter: Adapter) -> Adapter | None:
        """The row that says the same already. Raises `CONFLICT` for a name that stands
        for something else: it never changes by itself."""
        mine = (adapter.tenant_id, adapter.environment)
        for each in self._store.adapters_called(*mine, adapter.digest):
            if each.base_digest == adapter.base_digest:
                if each.name == adapter.name:
                    return each
                raise UserError(
                    Code.CONFLICT, f"This adapter is stored already, as {each.name}: use that name."
                )
        if self._store.adapters_called(*mine, adapter.name):
            raise UserError(
                Code.CONFLICT,
                f"{adapter.name} is another adapter already: give this one another name with "
                f"--name, or remove that one with `freehold adapter rm {adapter.name}`.",
                param="name",
            )
        return None

    def _keep(
        self, adapter: Adapter, folder: Path, signed: Sequence[Signature], *, is_new: bool
    ) -> None:
        """Files that are there already are laid over: a disk may have spoilt them."""
        blobs = self._models.blobs
        files = {CONFIG: adapter.config_digest, WEIGHTS: adapter.weights_digest}
        new = [digest for digest in files.values() if not blobs.path(digest).exists()]
        try:
            for name in files:
                blobs.put(folder / name)
            if is_new:
                self._store.add_adapters(adapter.tenant_id, [adapter], signed)
                return
            known = {each.key for each in self.signatures.of(adapter)}
            for each in signed:
                if each.key not in known:
                    self.signatures.add(adapter, each)
        except BaseException:
            for digest in new:
                blobs.remove(digest)
            raise

    def _examined(self, folder: Path, base: ModelCard) -> tuple[peft.Lora, str]:
        """What it changes of its base, and its digest."""
        header = checkpoint.read(self._models.files(base)) or gguf.read_header(
            self._models.path(base)
        )
        if not header.linears:
            raise UserError(
                Code.FILE_REFUSED,
                f"{base.name} has no layers that adapters are known for: choose a decoder of the "
                "Llama or Qwen family as the base.",
                param="base",
            )
        limit = self._rank_limit(base)
        config, weights = peft.load(
            folder / CONFIG, folder / WEIGHTS, header.linears, header.layers, limit
        )
        admit.check_plain(CONFIG, config)
        tensors = header_of(weights, WEIGHTS)
        lora = peft.check(config, tensors, header.linears, header.layers, limit)
        for tensor in tensors:
            _check_finite(tensor, weights)
        return lora, peft.digest_of(config, weights)


def _beside(path: Path, most: int) -> bytes | None:
    """Of a file that need not be there, and a byte more where it is too long."""
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except FileNotFoundError:
        return None


def _manifest(text: bytes | None, job: str | None) -> Manifest | None:
    """Only who did a job says that it made the adapter."""
    return None if text is None else dataclasses.replace(read_manifest(text), job=job)


def _scaling(lora: peft.Lora) -> str:
    scales = sorted({each.scale for each in lora.factors})
    ends = scales if len(scales) < 2 else (scales[0], scales[-1])
    return " to ".join(f"{each:g}" for each in ends)


def staging(home: Path) -> Path:
    return home / "cache" / "adapters"


def stage(home: Path, source: Path, signature: Path | None = None) -> str:
    """Copies a PEFT folder to where `Adapters.add` takes it from, and returns its ticket; with
    the signature in it, or one that lies elsewhere. Raises `FILE_REFUSED` for a folder with
    code or pickles in it, by name."""
    if not source.is_dir():
        raise UserError(
            Code.SOURCE_NOT_FOUND,
            f"{source} is no folder: name the folder that holds {CONFIG} and {WEIGHTS}.",
        )
    admit.choose(path.name for path in source.iterdir())
    files = {name: source / name for name in (CONFIG, WEIGHTS)}
    if (source / MANIFEST).exists():
        files[MANIFEST] = source / MANIFEST
    signed = signature or source / SIGNATURE
    if signature is not None or signed.exists():
        files[SIGNATURE] = signed
    return laid(home, files)


def laid(home: Path, files: Mapping[str, Path]) -> str:
    """The ticket of a new folder with copies of these. Raises `UserError`; then it is gone."""
    ticket = secrets.token_hex(16)
    folder = staging(home) / ticket
    try:
        folder.mkdir(mode=0o700, parents=True)
        for name, source in files.items():
            _copy(source, folder / name)
    except OSError as error:
        unstage(home, ticket)
        raise disk_error(error, folder) from None
    except BaseException:
        unstage(home, ticket)
        raise
    return ticket


def unstage(home: Path, ticket: str) -> None:
    shutil.rmtree(staging(home) / ticket, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    """A link is followed: it is the person's own folder, and hubs' caches are made of
    links. What is no file (a pipe, say) is never waited for."""
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UserError(
            Code.SOURCE_NOT_FOUND,
            f"{source} does not exist: an adapter is a folder with {CONFIG} and {WEIGHTS}.",
        ) from None
    with os.fdopen(handle, "rb") as original:
        if not stat.S_ISREG(os.fstat(original.fileno()).st_mode):
            raise UserError(
                Code.FILE_REFUSED, f"{source.name} is not a plain file: nothing was stored."
            )
        with target.open("xb") as copy:
            shutil.copyfileobj(original, copy, 1024 * 1024)


def _check_finite(tensor: Tensor, weights: bytes) -> None:
    import numpy as np  # which no command and no start needs but those that add an adapter

    values = np.frombuffer(weights[tensor.begin : tensor.end], dtype=_FLOATS[tensor.dtype])
    if tensor.dtype == "BF16":
        sound = bool(((values & 0x7F80) != 0x7F80).all())  # its exponent is not all ones
    else:
        sound = bool(np.isfinite(values).all())
    if not sound:
        raise peft.refused(f"{tensor.name} holds a value that is not finite")
