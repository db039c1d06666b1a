"""Whose signatures on adapters count: this installation's own, with a key in the home, and those
of the keys that its operator trusts.

A signature names the digests of an adapter's files, and an engine takes no files but those that
an adapter's digest stands for: so a signature that holds here holds over the very bytes that
are computed with, however many adapters there are.
"""

import dataclasses
import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from freehold.catalog import bundle
from freehold.config.home import write_private
from freehold.config.schema import SupplySettings
from freehold.core.acts import acting
from freehold.core.adapter import CONFIG, WEIGHTS, Adapter
from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.core.manifest import MANIFEST, as_plain, read_manifest
from freehold.core.signature import Signature, Signer, SigningKey
from freehold.store.base import SignatureStore

OURS = "this installation"
_OF_INSTALLATION = "of an installation that is trusted here (supply.trusted_installations)"
_REMEMBERED = 200_000
_LEAST = 8  # characters that stand for a key


@dataclass(frozen=True, slots=True)
class Trusted:
    """`by`: who has the private half, as far as anybody said. Of a revoked one nothing counts
    that was recorded here from `revoked_since_us` on, nor what comes from now on."""

    key: bundle.PublicKey
    by: str
    revoked_since_us: int | None = None

    @property
    def is_revoked(self) -> bool:
        return self.revoked_since_us is not None

    def counts_at(self, at_us: int) -> bool:
        """What was recorded here at that time."""
        return self.revoked_since_us is None or at_us < self.revoked_since_us


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of one signature: `by` whom it is where its key is trusted, and why it does
    not hold, if it does not."""

    signature: Signature
    by: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Revoked:
    """A key that was, and the adapters with a signature by it that no engine is told of now."""

    key: str
    kept_out: Sequence[Adapter]


@dataclass(frozen=True, slots=True)
class Vouched:
    """What a trusted key signed: files' digests, by name."""

    signer: Signer
    files: Mapping[str, str]


class Signatures:
    """One a process; safe from any thread. Everything may block."""

    def __init__(
        self, path: Path, store: SignatureStore, settings: SupplySettings, clock: Clock
    ) -> None:
        """`path` is where the private key is, which the first start makes."""
        self.required = frozenset(settings.require_signature)
        self.gate_days = settings.gate_days
        self._path = path
        self._store = store
        self._clock = clock
        self._changing = threading.Lock()
        believed = dict(_trusted_in("trusted_installations", settings.trusted_installations))
        self._named = {**dict(_trusted_in("trusted_keys", settings.trusted_keys)), **believed}
        self._believed = frozenset(believed)
        self._key = self._own()
        self._trusted = self._all_trusted()
        # What held once holds until its key is revoked, which is asked before: by the hash of all
        # that it depends on but the key.
        self._held: dict[bytes, str] = {}

    @property
    def keys(self) -> Sequence[tuple[SigningKey | None, str, Trusted]]:
        """All that count, with their ids; those of this installation have a `SigningKey`."""
        ours = {each.id: each for each in self._store.signing_keys()}
        self._hear()
        return [(ours.get(id), id, each) for id, each in self._trusted.items()]

    @property
    def current(self) -> str:
        return bundle.id_of(self._key.public_key())

    def sign(self, adapter: Adapter) -> Signature:
        """By the key of this installation, with what its manifest says. Nothing is stored."""
        manifest = None if adapter.manifest is None else json.dumps(as_plain(adapter.manifest))
        made = bundle.signed(adapter.name, _files(adapter, manifest), self._signing())
        return self._signature(adapter, self.current, made, manifest)

    def vouch(self, name: str, files: Mapping[str, str]) -> str:
        """A signature of this installation over files of any kind, which are called `name`
        together."""
        return bundle.signed(name, files, self._signing())

    def vouched(self, text: bytes) -> Vouched:
        """What a signature of an installation says, where that is trusted. Raises
        `bundle.Unreadable`."""
        found = bundle.parsed(text)
        self._hear()
        key = self._key_of(found)
        if key is None:
            raise bundle.Unreadable(f"it is by no key {_OF_INSTALLATION}")
        try:
            signer = self.signer(key)
        except bundle.Unreadable as error:
            raise bundle.Unreadable(f"it is by {error}") from None
        if not found.is_by(self._trusted[key].key):
            raise bundle.Unreadable(f"it is not by the key of {signer.by}, or was changed")
        return Vouched(signer, found.files)

    def signer(self, key: str) -> Signer:
        """Whose this key is. Raises `bundle.Unreadable`, beginning with the key, unless it is that
        of an installation which is trusted now."""
        self._hear()
        trusted = self._installation(key)
        if trusted is None:
            raise bundle.Unreadable(f"the key {key[:16]}, which is not one {_OF_INSTALLATION}")
        if trusted.is_revoked:
            raise bundle.Unreadable(_revoked(key))
        return Signer(key, trusted.by)

    def is_installation(self, key: str, at_us: int) -> bool:
        """Whether what it signed, and came here then, is believed about gates, too."""
        self._hear()
        found = self._installation(key)
        return found is not None and found.counts_at(at_us)

    def accept(self, adapter: Adapter, text: bytes, manifest: str | None) -> Signature:
        """One that came with an adapter; `manifest` is the text beside it. Raises
        `FILE_REFUSED` unless it holds."""
        found = bundle.read(text)
        if manifest is not None and MANIFEST not in found.files:
            raise bundle.refused(f"it is not over {MANIFEST}, which is there too")
        self._hear()
        key = self._key_of(found)
        if key is None:
            raise bundle.refused("it is by no key that is trusted here (supply.trusted_keys)")
        if self._is_revoked(key):
            raise bundle.refused(f"it is by {_revoked(key)}")
        signature = self._signature(adapter, key, text.decode(), manifest)
        checked = self._checked(adapter, signature)
        if checked.reason is not None:
            raise bundle.refused(checked.reason)
        return signature

    def carried(
        self, adapter: Adapter, told: Sequence[tuple[str, str, str | None]]
    ) -> list[Signature]:
        """Of those that an adapter brought along (key, bundle, manifest) the ones by keys that are
        trusted here and not revoked. Raises `bundle.Unreadable` where one of them does not hold,
        or where there are some and none is by such a key."""
        made = [self._signature(adapter, *each) for each in told]
        by_known = [each for each in self.checked(adapter, made) if each.by is not None]
        ours = [each for each in by_known if not self._is_revoked(each.signature.key)]
        if by_known and not ours:
            raise bundle.Unreadable(f"it is by {_revoked(by_known[0].signature.key)}")
        wrong = next((each.reason for each in ours if each.reason is not None), None)
        if wrong is not None:
            raise bundle.Unreadable(wrong)
        if told and not ours:
            raise bundle.Unreadable(
                "none of them is by a key that is trusted here (supply.trusted_keys); where it "
                "comes from, `freehold adapter sign` has that installation stand for it"
            )
        return [each.signature for each in ours]

    def checked(self, adapter: Adapter, signatures: Sequence[Signature]) -> list[Checked]:
        self._hear()
        return [self._checked(adapter, each) for each in signatures]

    def why_not(self, adapter: Adapter, signatures: Sequence[Signature]) -> str | None:
        """Why no engine may be told of it; None where it may. One signature that holds is
        enough, and none at all where none is asked for."""
        return self.reasons([(adapter, signatures)])[0]

    def reasons(self, signed: Sequence[tuple[Adapter, Sequence[Signature]]]) -> list[str | None]:
        """`why_not` of each, by what is trusted now."""
        self._hear()
        return [self._why_not(*each) for each in signed]

    def _why_not(self, adapter: Adapter, signatures: Sequence[Signature]) -> str | None:
        if not signatures:
            if adapter.environment not in self.required:
                return None
            return f"it is not signed, and {adapter.environment} takes what is signed alone"
        reasons = []
        for each in signatures:
            reason = self._checked(adapter, each).reason
            if reason is None:
                return None
            reasons.append(reason)
        return reasons[0]

    def check(self, adapter: Adapter) -> None:
        """Raises `FILE_REFUSED` where no engine may be told of it."""
        found = self._store.signatures(adapter.tenant_id, adapter.digest)
        reason = self.why_not(adapter, found)
        if reason is not None:
            raise UserError(
                Code.FILE_REFUSED,
                f"{adapter.name} cannot be served: {reason}. See `freehold adapter verify "
                f"{adapter.name}`, and sign what you trust with `freehold adapter sign`.",
                param="adapter",
            )

    def of(self, adapter: Adapter) -> Sequence[Signature]:
        return self._store.signatures(adapter.tenant_id, adapter.digest)

    def add(self, adapter: Adapter, signature: Signature) -> None:
        self._store.add_signature(adapter.tenant_id, adapter, signature)

    def rotate(self) -> SigningKey:
        """From now on another key signs. What the ones before signed stays valid until they are
        revoked."""
        with self._changing:
            key = bundle.new_key()
            new = self._known(key.public_key())
            # First where it is trusted, then where it signs: a death in between costs nothing.
            self._store.add_signing_key(new, is_rotation=True)
            write_private(self._path, _private(key))
            self._key = key
        return new

    def revoke(self, reference: str, since_us: int) -> Revoked:
        """What this key of ours signed counts no more where it was recorded from then on, nor
        what comes with its signature from now on; `reference` is its id, or how that begins.
        Raises `UserError`; then nothing was changed."""
        key = self._meant(reference)
        if key == self.current:
            raise UserError(
                Code.CONFLICT,
                f"The key {key[:16]} is the one that signs: have another made first, with "
                "`freehold adapter rotate-key`.",
            )
        if since_us > self._clock.wall_us():
            raise UserError(
                Code.INVALID_VALUE,
                "A key is revoked from now or an earlier time on, and this one lies ahead.",
                param="since",
            )
        self._store.revoke_signing_key(key, max(since_us, 0))
        signed = self._store.adapters_signed_by(key)
        reasons = self.reasons(signed)
        kept_out = [each for (each, _), why in zip(signed, reasons, strict=True) if why is not None]
        return Revoked(key, kept_out)

    def _meant(self, reference: str) -> str:
        ours = {each.id for each in self._store.signing_keys()}
        found = [each for each in ours | self._named.keys() if each.startswith(reference)]
        if len(reference) < _LEAST:
            found = []
        if len(found) != 1:
            which = "no key" if not found else "more than one key"
            raise UserError(
                Code.CONFLICT if found else Code.NOT_FOUND,
                f"There is {which} {reference[:16]!r}: see `freehold adapter keys`.",
            )
        if found[0] not in ours:
            raise UserError(
                Code.CONFLICT,
                f"The key {found[0][:16]} is {self._named[found[0]].by} of the settings: take it "
                "out of supply.trusted_keys or supply.trusted_installations, and start the "
                "gateways again.",
            )
        return found[0]

    def _signing(self) -> bundle.PrivateKey:
        """Another one where that of this home was revoked, by another gateway."""
        self._hear()
        if self._is_revoked(self.current):
            self.rotate()
        return self._key

    def _own(self) -> bundle.PrivateKey:
        """A home whose key is gone gets another: no signature depends on the private half."""
        try:
            key = serialization.load_pem_private_key(self._path.read_bytes(), None)
            if not isinstance(key, bundle.PrivateKey):
                raise ValueError
        except FileNotFoundError:
            key = bundle.new_key()
            write_private(self._path, _private(key))
        except (OSError, ValueError, TypeError):
            raise UserError(
                Code.CONFIG_INVALID,
                f"{self._path} is not readable as the key that signs adapters: restore it from a "
                "backup, or move it away to have another made.",
            ) from None
        known = self._known(key.public_key())
        if known.id not in {each.id for each in self._store.signing_keys()}:
            self._store.add_signing_key(known, is_rotation=False)
        return key

    def _known(self, key: bundle.PublicKey) -> SigningKey:
        return SigningKey(bundle.id_of(key), bundle.pem_of(key).decode(), self._clock.wall_us())

    def _all_trusted(self) -> Mapping[str, Trusted]:
        ours = {
            each.id: Trusted(bundle.read_public(each.public.encode()), OURS, each.revoked_since_us)
            for each in self._store.signing_keys()
        }
        return {**self._named, **ours}

    def _hear(self) -> None:
        """Another gateway may have taken a new key, or revoked one."""
        self._trusted = self._all_trusted()

    def _is_revoked(self, key: str) -> bool:
        found = self._trusted.get(key)
        return found is not None and found.is_revoked

    def _installation(self, key: str) -> Trusted | None:
        """Who publishes adapters may sign these, and say nothing of gates."""
        found = self._trusted.get(key)
        is_one = found is not None and (key in self._believed or found.by == OURS)
        return found if is_one else None

    def _key_of(self, found: bundle.Bundle) -> str | None:
        """The one that it names, or else the trusted one that made it."""
        made = (id for id, each in self._trusted.items() if found.is_by(each.key))
        return found.key or next(made, None)

    def _signature(self, adapter: Adapter, key: str, text: str, manifest: str | None) -> Signature:
        who = acting()
        by = who.principal if who is not None else "freehold"
        at_us = self._clock.wall_us()
        return Signature(adapter.tenant_id, adapter.digest, key, text, manifest, at_us, by)

    def _checked(self, adapter: Adapter, signature: Signature) -> Checked:
        trusted = self._trusted.get(signature.key)
        if trusted is None:
            why = f"it is by the key {signature.key[:16]}, which is not trusted here"
            return Checked(signature, None, f"{why} (supply.trusted_keys)")
        if not trusted.counts_at(signature.made_at_us):
            return Checked(signature, trusted.by, f"it is by {_revoked(signature.key)}")
        of = _all_of(adapter, signature)
        if self._held.get(of) == signature.key:
            return Checked(signature, trusted.by, None)
        reason = _why_not(adapter, signature, trusted)
        if reason is None:
            if len(self._held) >= _REMEMBERED:
                self._held.clear()
            self._held[of] = signature.key
        return Checked(signature, trusted.by, reason)


def _revoked(key: str) -> str:
    return f"the key {key[:16]}, which was revoked here"


def _why_not(adapter: Adapter, signature: Signature, trusted: Trusted) -> str | None:
    try:
        found = bundle.read(signature.bundle.encode())
    except UserError:
        return "its signature was changed"
    if not found.is_by(trusted.key):
        return f"its signature is not by the key of {trusted.by}, or was changed"
    for name, digest in _files(adapter, signature.manifest).items():
        if name not in found.files:
            return f"its signature is not over {name}"
        if found.files[name] != digest:
            return f"its signature is over another {name}"
    if MANIFEST in found.files and not _says_the_same(adapter, signature, trusted):
        return f"what is said of where it comes from is not what was signed ({MANIFEST})"
    return None


def _says_the_same(adapter: Adapter, signature: Signature, trusted: Trusted) -> bool:
    """Another installation's job is nothing that this one knows: it is left out of what is
    kept, so only our own signatures are over it, where it did not come back from elsewhere."""
    if signature.manifest is None or adapter.manifest is None:
        return False
    said = read_manifest(signature.manifest.encode())
    if trusted.by != OURS or adapter.manifest.job is None:
        said = dataclasses.replace(said, job=adapter.manifest.job)
    return said == adapter.manifest


def _files(adapter: Adapter, manifest: str | None) -> dict[str, str]:
    files = {CONFIG: adapter.config_digest, WEIGHTS: adapter.weights_digest}
    if manifest is not None:
        files[MANIFEST] = f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"
    return files


def _all_of(adapter: Adapter, signature: Signature) -> bytes:
    said = json.dumps(as_plain(adapter.manifest)) if adapter.manifest is not None else ""
    parts = (
        adapter.config_digest, adapter.weights_digest, said, signature.manifest or "",
        signature.bundle,
    )  # fmt: skip
    whole = hashlib.sha256()
    for each in parts:
        whole.update(b"%d:%b" % (len(each.encode()), each.encode()))
    return whole.digest()


def _private(key: bundle.PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _trusted_in(setting: str, names: Iterable[str]) -> Iterator[tuple[str, Trusted]]:
    for name in names:
        path = Path(name).expanduser()
        try:
            key = bundle.read_public(path.read_bytes())
        except (OSError, ValueError):
            raise UserError(
                Code.CONFIG_INVALID,
                f"supply.{setting}: {name} is no public key in PEM, of the curve P-256, P-384 or "
                "P-521.",
            ) from None
        yield bundle.id_of(key), Trusted(key, path.name if path.name != OURS else str(path))
