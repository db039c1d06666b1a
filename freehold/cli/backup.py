"""`freehold backup` and `freehold restore`: all of an installation in one file, and back."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from freehold.cli.options.with_default import WithDefault
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    plain,
    print_json,
    stderr,
    table,
)
from freehold.config import load
from freehold.config.home import Home, write_private
from freehold.core.errors import Code, UserError
from freehold.core.secret import Secret
from freehold.core.words import size
from freehold.operate.backups import backup, restore
from freehold.operate.backups.served import backups_in, shown_backup, shown_time
from freehold.secure import age

_SHORTEST = 12


class _Default(WithDefault):
    default = "create"


app = typer.Typer(
    cls=_Default,
    rich_markup_mode=None,
    help="All of an installation in one file.",
)

PassphraseFile = Annotated[
    Path | None, typer.Option(help="A file whose first line is the passphrase.")
]
Identity = Annotated[
    Path | None, typer.Option(help="The secret key's file, as `freehold backup key` made it.")
]
File = Annotated[Path, typer.Argument(help="A file that `freehold backup` made.")]


@app.command()
def create(
    path: Annotated[
        Path | None, typer.Argument(help="A new file, or a folder. Default: backups/ in the home.")
    ] = None,
    recipient: Annotated[
        Path | None, typer.Option(help="A file of public keys; each opens the backup alone.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    without_secrets: Annotated[
        bool, typer.Option("--without-secrets", help="In clear, and without what opens keys.")
    ] = False,
    include_models: Annotated[
        bool, typer.Option("--include-models", help="With the weights of all stored models.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write all of this installation into one new file; a gateway may serve meanwhile."""
    with errors_in_a_sentence(as_json):
        home = load.home()
        lock = _lock(home, recipient, passphrase_file, without_secrets)
        is_elsewhere = load.settings(home.settings).database.url is not None
        wanted = backup.Wanted(lock, home.settings, include_models, is_elsewhere)
        name = backup.default_name(lock, time.time())
        target = (path or _folder(home)).absolute()
        if path is None or target.is_dir():
            target = target / name
        with _progress("Backing up…") as told:
            made = backup.make(home, target, wanted, told)
    shown = shown_backup(made.path, made.size, made.about)
    if as_json:
        print_json({**shown, "notes": list(made.notes)})
        return
    console.print(f"{plain(made.path)}: {size(made.size)}, as of {shown['at']}.", soft_wrap=True)
    for note in made.notes:
        console.print(plain(note))
    if lock is None:
        console.print("It holds no secrets: keep secrets/ of the home elsewhere, or no key works.")


@app.command("list")
def list_(
    folder: Annotated[Path | None, typer.Argument(help="Default: backups/ in the home.")] = None,
    as_json: Json = False,
) -> None:
    """The backups in a folder, oldest first; of encrypted ones only name, size and time."""
    with errors_in_a_sentence(as_json):
        chosen = folder or _folder(load.home())
        if not chosen.is_dir():
            raise UserError(Code.NOT_FOUND, f"There is no folder {chosen}: name one.")
        found = backups_in(chosen)
    if as_json:
        print_json(found)
        return
    rows = [
        [each["name"], size(each["size_bytes"]), each["at"], each["version"],
         "encrypted" if each["encrypted"] else "in clear"]
        for each in found
    ]  # fmt: skip
    table(["file", "size", "as of", "version", ""], rows, "There are no backups there.")


@app.command()
def verify(
    path: File,
    passphrase_file: PassphraseFile = None,
    identity: Identity = None,
    as_json: Json = False,
) -> None:
    """Check every file of a backup, its database and its audit records; changes nothing."""
    with errors_in_a_sentence(as_json):
        home, opener = load.home(), _opener(passphrase_file, identity)
        scratch = home.cache if home.cache.is_dir() else None
        with _progress("Verifying…", path) as told:
            found = restore.verify(path, opener, scratch, lambda count: told(count, 0))
    if as_json:
        shown = shown_backup(path, path.stat().st_size, found.about)
        print_json({**shown, "files": found.files, "audit_records": found.records,
                    "missing": list(found.missing)})  # fmt: skip
        return
    for each in found.missing:
        console.print(f"The file {plain(each)} was missing or spoilt when the backup was made.")
    console.print(
        f"Sound: {found.files} files, {found.records} audit records, as of "
        f"{shown_time(found.about['at_us'])}, made by Freehold {plain(found.about['version'])}."
    )


@app.command()
def key(
    path: Annotated[Path, typer.Argument(help="A new file for the secret key.")],
    as_json: Json = False,
) -> None:
    """Make a pair of keys: the file opens backups, the printed public key locks them."""
    with errors_in_a_sentence(as_json):
        if path.exists():
            raise UserError(Code.CONFLICT, f"{path} is there already: name a new file.")
        secret, public = age.new_identity()
        try:
            write_private(path, f"# public key: {public}\n{secret}\n".encode())
        except OSError as error:
            raise UserError(
                Code.STORAGE_UNAVAILABLE,
                f"{path} cannot be written ({error.strerror}): name a file in another folder.",
            ) from None
    if as_json:
        print_json({"path": str(path), "recipient": public})
        return
    console.print(public, soft_wrap=True)
    stderr.print(f"Keep {plain(path)} away from this machine: it opens what that key locks.")


def restore_(
    path: File,
    to: Annotated[
        Path | None, typer.Option("--home", help="The folder to restore to. Default: the home.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Move a home that is there aside first.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    identity: Identity = None,
    as_json: Json = False,
) -> None:
    """Put a backup back, whole or not at all; what is there is moved aside, never lost."""
    with errors_in_a_sentence(as_json):
        home = load.home() if to is None else Home(to.expanduser().absolute())
        opener = _opener(passphrase_file, identity)
        with _progress("Restoring…", path) as told:
            done = restore.restore(
                path, opener, home, replace=replace, told=lambda count: told(count, 0)
            )
        elsewhere = _checkpoints_elsewhere(home)
    if as_json:
        print_json(
            {
                "home": str(home.path),
                "at": shown_time(done.about["at_us"]),
                "moved_aside": done.aside and str(done.aside),
                "kept_ended": done.kept_ends,
                "lacks_secrets": done.lacks_secrets,
                "lacks_models": list(done.models),
                "checkpoints": elsewhere,
            }
        )
        return
    _tell(home, done, elsewhere)


def _tell(home: Home, done: restore.Restored, elsewhere: str | None) -> None:
    at = shown_time(done.about["at_us"])
    console.print(f"{plain(home.path)} is again as it was at {at}.", soft_wrap=True)
    if done.aside is not None:
        console.print(f"What was there is in {plain(done.aside)}.", soft_wrap=True)
    if done.kept_ends is None:
        console.print(
            f"Keys that were revoked and tenants that were disabled after {at} are not so any "
            "more: look through `freehold key list` and `freehold tenant list`."
        )
    else:
        console.print(
            f"{done.kept_ends} keys and tenants that had ended after that stay ended; what else "
            "was changed since then is as it was."
        )
    if done.lacks_secrets:
        console.print(
            "The backup holds no secrets: put secrets/ back from where you keep it before the "
            "next start."
        )
    for name in done.models:
        console.print(f"The model {plain(name)} is not in the backup: pull it again.")
    if elsewhere is not None:
        console.print(
            f"The settings keep the audit's checkpoints in {plain(elsewhere)}, which may know of "
            "later records: move that file to whoever audits before the next start.",
            soft_wrap=True,
        )


def _folder(home: Home) -> Path:
    chosen = load.settings(home.settings).backup.folder
    return Path(chosen).expanduser() if chosen else home.path / "backups"


def _lock(
    home: Home, recipient: Path | None, passphrase_file: Path | None, without_secrets: bool
) -> age.Lock | None:
    named = [recipient is not None, passphrase_file is not None, without_secrets]
    if sum(named) > 1:
        raise typer.BadParameter("choose one of --recipient, --passphrase-file, --without-secrets")
    if without_secrets:
        return None
    if passphrase_file is not None:
        return _passphrase(passphrase_file)
    if recipient is None:
        chosen = load.settings(home.settings).backup.recipient
        recipient = None if chosen is None else Path(chosen).expanduser()
    if recipient is None:
        raise UserError(
            Code.INVALID_VALUE,
            "The secrets of this installation are not written in clear: lock the backup with "
            "--recipient or --passphrase-file, or leave them out with --without-secrets.",
        )
    return age.recipients(_text(recipient))


def _opener(passphrase_file: Path | None, identity: Path | None) -> age.Opener | None:
    if passphrase_file is not None and identity is not None:
        raise typer.BadParameter("choose one of --passphrase-file and --identity")
    if passphrase_file is not None:
        return _passphrase(passphrase_file)
    return None if identity is None else age.identities(_text(identity))


def _passphrase(path: Path) -> age.Passphrase:
    first = _text(path).partition("\n")[0].rstrip("\r")
    if len(first) < _SHORTEST:
        raise UserError(
            Code.INVALID_VALUE,
            f"The passphrase in the first line of {path} must have at least {_SHORTEST} "
            "characters.",
        )
    return age.Passphrase(Secret(first))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(
            Code.SOURCE_NOT_FOUND, f"{path} cannot be read ({why}): name another file."
        ) from None


def _checkpoints_elsewhere(home: Home) -> str | None:
    try:
        chosen = load.settings(home.settings).audit.checkpoints
    except UserError:  # which the next start tells
        return None
    return chosen if chosen and Path(chosen).expanduser().exists() else None


@contextmanager
def _progress(what: str, path: Path | None = None) -> Iterator[Callable[[int, int], None]]:
    """Takes what is done of how much, or how much came to it of a file's size."""
    total = path.stat().st_size if path is not None and path.is_file() else None
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=stderr, transient=True) as shown:
        task = shown.add_task(what, total=total)

        def told(done: int, all_: int) -> None:
            if path is None:
                shown.update(task, completed=done, total=max(all_, 1))
            else:
                shown.advance(task, done)

        yield told
