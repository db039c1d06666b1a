"""What is wrong with an installation, or soon will be, and what to do about it. Looks only."""

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from freehold.catalog.datasets import is_whole
from freehold.config.home import Home
from freehold.config.schema import Settings
from freehold.core.dataset import Dataset
from freehold.core.errors import UserError
from freehold.core.subject import Remembered
from freehold.operate.doctor.findings import Finding, State
from freehold.secure import checkpoints
from freehold.secure.keys import pepper_check
from freehold.secure.network import network
from freehold.secure.subjects import subjects_check
from freehold.store.backend import Backend
from freehold.store.subjects import AuditReader

_SOON_DAYS = 14
_LITTLE_BYTES, _TOO_LITTLE_BYTES = 2 * 2**30, 256 * 2**20
_AHEAD_S = 120  # a file that is younger than now by more was written under another clock
_SETTLES_S = 2.0  # a running gateway signs records a moment before it stores them
_MANY_GUESSES = 10_000


@dataclass(frozen=True, slots=True)
class Installation:
    """`status` is what the gateway that runs on this home says; None: none runs."""

    home: Home
    settings: Settings
    where: Backend
    status: Mapping[str, Any] | None

    @property
    def is_used(self) -> bool:
        return self.settings.database.url is not None or self.home.database.exists()

    @contextmanager
    def reading(self) -> Iterator[AuditReader]:
        reader = AuditReader(self.where)
        try:
            yield reader
        finally:
            reader.close()


def checked(installation: Installation) -> Iterator[Finding]:
    for check in (
        _permissions, _secrets, _disk, _database, _audit, _data, _clock, _certificates,
        _engines, _settings,
    ):  # fmt: skip
        yield from check(installation)


def _permissions(installation: Installation) -> Iterator[Finding]:
    home, server = installation.home, installation.settings.server
    private = [
        home.path,
        home.secrets,
        home.run,
        home.database,
        home.admin_key,
        home.gateway_record,
    ]
    private += [*home.secrets.glob("*"), *home.tls.glob("*.key"), *home.tls.glob("clients/*")]
    private += [Path(each).expanduser() for each in (server.tls_key,) if each]
    private += [
        Path(each.api_key_file).expanduser()
        for each in installation.settings.upstreams
        if each.api_key_file
    ]
    wrong = [path for path in private if path.exists() and not _is_own(path)]
    if wrong:
        shown = ", ".join(map(str, wrong[:3]))
        said = f"Others may read or own {shown}: `chown` them to this user and `chmod go=`."
        yield Finding("permissions", State.FAIL, said, f"{len(wrong)} of {len(private)}")
        return
    said = "The home, its secrets and the keys that the settings name are this user's alone."
    yield Finding("permissions", State.PASS, said)


def _is_own(path: Path) -> bool:
    found = path.stat()
    return found.st_uid in (os.geteuid(), 0) and not stat.S_IMODE(found.st_mode) & 0o077


def _secrets(installation: Installation) -> Iterator[Finding]:
    """Whether the next start would find what it needs."""
    home = installation.home
    if not installation.is_used:
        said = "Nothing was started on this home yet: run `freehold up`."
        yield Finding("secrets", State.NOT_APPLICABLE, said)
        return
    made: Mapping[str, tuple[str, Callable[[bytes], str]]] = {
        "pepper": ("pepper_check", pepper_check),
        "audit": ("audit_key", _public),
        "subjects": ("subjects_check", subjects_check),
    }
    wrong = []
    with installation.reading() as reader:
        for name, (fact, shown) in made.items():
            known = reader.fact(fact)
            try:
                content = (home.secrets / name).read_bytes()
            except OSError:
                content = b""
            if known is not None and (len(content) != 32 or shown(content) != known):
                wrong.append(str(home.secrets / name))
    if wrong:
        said = f"The next start fails without {' and '.join(wrong)}: restore it from a backup now."
        yield Finding("secrets", State.FAIL, said)
    else:
        said = "The secrets are those that the database was made with."
        yield Finding("secrets", State.PASS, said)


def _public(seed: bytes) -> str:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex()


def _disk(installation: Installation) -> Iterator[Finding]:
    free = shutil.disk_usage(_nearest(installation.home.path)).free
    measured = f"{free / 2**30:.1f} GiB free"
    if free < _TOO_LITTLE_BYTES:
        said = "The disk of the home is nearly full: requests stop when usage cannot be written."
        yield Finding("disk", State.FAIL, said, measured)
    elif free < _LITTLE_BYTES:
        said = "The disk of the home fills up: free some, or `freehold model rm` what is unused."
        yield Finding("disk", State.WARNING, said, measured)
    else:
        yield Finding("disk", State.PASS, "There is room for usage, records and logs.", measured)


def _nearest(path: Path) -> Path:
    return path if path.exists() else _nearest(path.parent)


def _database(installation: Installation) -> Iterator[Finding]:
    if not installation.is_used:
        return
    try:
        with installation.reading() as reader:
            damage = reader.damage()
    except UserError as error:
        damage = error.message
    if damage is None:
        yield Finding("database", State.PASS, "The database is whole.")
    else:
        said = f"The database is damaged ({damage[:120]}): stop the gateway, restore a backup."
        yield Finding("database", State.FAIL, said)


def _audit(installation: Installation) -> Iterator[Finding]:
    if not installation.is_used:
        return
    found = _differing(installation)
    if found and installation.status is not None:
        time.sleep(_SETTLES_S)
        found = _differing(installation)
    if found:
        yield Finding("audit", State.FAIL, f"{found} See `freehold audit verify`.")
        return
    said = "The records end where they were signed; `freehold audit verify` checks every one."
    yield Finding("audit", State.PASS, said)


def _data(installation: Installation) -> Iterator[Finding]:
    """What was trained on can be shown only while it is there."""
    if not installation.is_used:
        return
    try:
        with installation.reading() as reader:
            stored, held = reader.every_dataset(), reader.every_remembered()
    except UserError:  # which the database's own finding tells
        return
    yield _kept(installation, stored)
    yield _forgotten(held)


def _kept(installation: Installation, stored: Sequence[Dataset]) -> Finding:
    lost = [each for each in stored if not is_whole(installation.home.path, each)]
    if lost:
        shown = ", ".join(f"{each.name}@{each.version} in {each.place}" for each in lost[:3])
        said = f"The files of {shown} are missing or were changed: restore them, or add them again."
        return Finding("data", State.FAIL, said, f"{len(lost)} of {len(stored)}")
    return Finding(
        "data", State.PASS, "The files of datasets are what they were.", str(len(stored))
    )


def _forgotten(held: Sequence[Remembered]) -> Finding:
    if not held:
        said = "Nothing holds words of somebody who was forgotten."
        return Finding("forgotten", State.PASS, said)
    shown = ", ".join(f"{each.kind} {each.name} in {each.environment}" for each in held[:3])
    said = (
        f"Words of somebody who was forgotten are in {shown}: remove it, and make it again from "
        "what is left."
    )
    return Finding("forgotten", State.WARNING, said, str(len(held)))


def _differing(installation: Installation) -> str | None:
    """One sentence about the first stream that does not end as it was signed."""
    try:
        with installation.reading() as reader:
            key, place = reader.fact("audit_key"), reader.fact(reader.own("audit_checkpoints"))
            if key is None or place is None:
                return None
            signed = checkpoints.signed(Path(place), checkpoints.public_key(key))
            found = reader.audit_heads()  # of other gateways' too, which sign elsewhere
            heads = {stream: head for stream, head in found.items() if reader.is_own(stream)}
    except UserError as error:
        return error.message
    except (OSError, ValueError):
        return "The checkpoints of the audit records cannot be read."
    for stream in sorted(heads.keys() | signed.hashes.keys()):
        hashes = signed.hashes.get(stream, [])
        last = signed.first.get(stream, 1) + len(hashes) - 1
        head = heads.get(stream)
        shown = head.hash[: checkpoints.SHOWN_BYTES] if head else b""
        if head is None or head.number != last or shown != hashes[-1]:
            return f"The audit records of {stream} do not end where they were signed."
    return None


def _clock(installation: Installation) -> Iterator[Finding]:
    """Expiry, tokens and certificates all hang on it."""
    files = (installation.home.database, installation.home.gateway_record)
    ahead = max((each.stat().st_mtime - time.time() for each in files if each.exists()), default=0)
    if ahead > _AHEAD_S:
        said = "The clock stands before files that were written here: set it (NTP), or keys and "
        said += "tokens that have ended count again."
        yield Finding("clock", State.FAIL, said, f"{ahead:.0f} s")
    else:
        said = "The clock does not stand before what was written here."
        yield Finding("clock", State.PASS, said)


def _certificates(installation: Installation) -> Iterator[Finding]:
    server, calls = installation.settings.server, installation.settings.network
    named = {
        "server.tls_certificate": server.tls_certificate,
        "server.client_ca": server.client_ca,
        "network.ca_file": calls.ca_file,
    }
    if not any(named.values()):
        yield Finding("certificates", State.NOT_APPLICABLE, "The settings name no certificate.")
    for setting, file in named.items():
        if file is not None:
            yield _certificate(setting, Path(file).expanduser())


def _certificate(setting: str, path: Path) -> Finding:
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        said = f"{path} cannot be read as certificates: the next start fails, put it back."
        return Finding(f"certificates: {setting}", State.FAIL, said)
    # Of the server's it is the first that ends for clients, of authorities any of them.
    ends = min(each.not_valid_after_utc for each in found)
    begins = max(each.not_valid_before_utc for each in found)
    now = datetime.now(ends.tzinfo)
    days = (ends - now).total_seconds() / 86_400
    measured = f"{days:.0f} days left"
    if now < begins:
        said = f"{path} is not valid yet: compare this machine's clock with its issuer's."
        return Finding(f"certificates: {setting}", State.FAIL, said, measured)
    if days <= 0:
        said = f"{path} has ended: put a new one there, which a running gateway takes up."
        return Finding(f"certificates: {setting}", State.FAIL, said, measured)
    if days < _SOON_DAYS:
        said = f"{path} ends soon: renew it; a running gateway takes the new one up."
        return Finding(f"certificates: {setting}", State.WARNING, said, measured)
    return Finding(f"certificates: {setting}", State.PASS, f"{path} is valid.", measured)


def _engines(installation: Installation) -> Iterator[Finding]:
    status = installation.status
    if status is None:
        said = "No gateway runs on this home: start one with `freehold up`."
        yield Finding("engines", State.NOT_APPLICABLE, said)
        return
    replicas = [each for pool in status["pools"] for each in pool["replicas"]]
    wrong = [
        f"{each['name']} is {each['state']}"
        + (f" ({each['last_error']})" if each.get("last_error") else "")
        for each in replicas
        if each["state"] != "ready"
    ]
    wrong += [
        f"{pool['name']} refused {pool['refused_adapters']} adapters"
        for pool in status["pools"]
        if pool["refused_adapters"]
    ]
    if not status["ledger_writable"]:
        wrong.append("usage cannot be recorded")
    if wrong:
        said = f"{'; '.join(wrong[:4])}: see `freehold status` and logs/engine-*.log in the home."
        yield Finding("engines", State.FAIL, said, f"{len(wrong)} problems")
    else:
        yield Finding("engines", State.PASS, "Every engine serves.", f"{len(replicas)} replicas")


def _settings(installation: Installation) -> Iterator[Finding]:
    """Those that weaken what is promised: known to whoever set them, perhaps long ago."""
    found = list(_weak(installation.settings))
    for said in found:
        yield Finding("settings", State.WARNING, said)
    if not found:
        yield Finding("settings", State.PASS, "No setting weakens what is promised.")


def _weak(settings: Settings) -> Iterator[str]:
    server = settings.server
    if "*" in server.allowed_hosts:
        yield (
            "server.allowed_hosts holds `*`: pages of other sites may call this gateway through "
            "a name of theirs; list the names that clients use."
        )
    if server.tls_ends_in_front and not server.tls_certificate and not _is_loopback(server.host):
        yield (
            f"Between the proxy and {server.host} everything goes in the clear: bind to "
            "127.0.0.1, or set server.tls_certificate too."
        )
    wide = [each for each in server.trusted_proxies if network(each).prefixlen <= 4]
    if wide and not server.proxy_certificates:
        yield (
            f"server.trusted_proxies holds {wide[0]}: anybody may say where a request is from; "
            "name the proxies, or set server.proxy_certificates."
        )
    if server.client_ca and server.client_certificates == "optional":
        yield "server.client_certificates is optional: whoever has none is let in with a key alone."
    if settings.limits.wrong_keys_a_minute > _MANY_GUESSES:
        yield "limits.wrong_keys_a_minute lets keys be guessed nearly without end: lower it."
    if settings.audit.checkpoints is None:
        yield (
            "The audit checkpoints lie beside the records, so who changes one can change both: "
            "set audit.checkpoints to another disk or machine."
        )


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
