"""`freehold audit`: who used what, and whether the records are whole."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from freehold.cli.options.owner import EnvironmentOption, Of, TenantOption
from freehold.cli.reaching import reach
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
from freehold.config.home import Home
from freehold.core.audit import Kind, Level, stream_at
from freehold.core.errors import Code, UserError
from freehold.secure.ocsf import event

if TYPE_CHECKING:
    from freehold.secure.audit import Finding
    from freehold.store.backend import Backend
    from freehold.store.subjects import AuditReader

app = typer.Typer(no_args_is_help=True, help="Who used what, and whether the records are whole.")
_PATH = "/admin/v1/audit"
_PAGE = 1000
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
_SETTLES_S = 2.0  # a running gateway signs records a moment before it stores them

LevelOption = Annotated[
    Level,
    typer.Option(help="Whose: an environment's, a tenant's as a whole, or the installation's."),
]


AfterOption = Annotated[int, typer.Option(min=0, help="Records after this number, of each chain.")]


class Format(StrEnum):
    JSONL = "jsonl"
    OCSF = "ocsf"


@app.command(name="list")
def list_(
    after: AfterOption = 0,
    cursor: Annotated[str | None, typer.Option(help="As the list before told it.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_PAGE)] = 50,
    since: Annotated[datetime | None, typer.Option(formats=_TIMES, help="From then on.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=_TIMES, help="Before then.")] = None,
    principal: Annotated[str | None, typer.Option(help="Of this key or person.")] = None,
    model: Annotated[str | None, typer.Option(help="Of this model.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Requests, acts, …")] = None,
    level: LevelOption = Level.ENVIRONMENT,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Audit records of a tenant's environment, of a tenant as a whole or of the
    installation, oldest first; times are UTC."""
    sought: dict[str, Any] = {
        "after": after,
        "cursor": cursor,
        "since": since.isoformat() if since else None,
        "until": until.isoformat() if until else None,
        "principal": principal,
        "model": model,
        "kind": kind.value if kind else None,
    }
    with errors_in_a_sentence(as_json):
        page = _page(load.home(), Of(tenant, environment), level, limit, sought)
    found = page["data"]
    if page["next"]:
        stderr.print(f"There are more, with `--cursor {page['next']}`.", soft_wrap=True)
    if as_json:
        print_json([{**each, "body": orjson.loads(each["body"])} for each in found])
        return
    rows = [_row(each, orjson.loads(each["body"])) for each in found]
    columns = ["number", "at (UTC)", "principal", "who, from", "what", "about", "outcome"]
    table(columns, rows, "None.")


@app.command()
def export(
    format_: Annotated[Format, typer.Option("--format", help="jsonl, or ocsf for a SIEM.")] = (
        Format.JSONL
    ),
    after: AfterOption = 0,
    level: LevelOption = Level.ENVIRONMENT,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Write all audit records of a tenant's environment to standard output, one a line:
    JSON in either format."""
    with errors_in_a_sentence(as_json):
        home, of = load.home(), Of(tenant, environment)
        asked: dict[str, Any] = {"after": after}
        while asked:
            page = _page(home, of, level, _PAGE, asked)
            for each in page["data"]:
                body = orjson.loads(each["body"])
                if format_ is Format.OCSF:
                    known = each["personal"] if isinstance(each["personal"], dict) else None
                    shown = event(each["stream"], each["number"], body, known)
                else:
                    shown = each
                sys.stdout.write(orjson.dumps(shown).decode() + "\n")
            asked = asked | {"cursor": page["next"]} if page["next"] else {}


@app.command()
def content(
    request: Annotated[str, typer.Argument(help="A request's id.")],
    delete: Annotated[bool, typer.Option("--delete", help="Remove it instead.")] = False,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """What was asked and answered, for a tenant that has it kept (`freehold tenant set
    --audit-content on`). That it was read, or removed, is recorded."""
    with errors_in_a_sentence(as_json):
        found = _content(load.home(), Of(tenant, environment), request, delete)
    if as_json:
        print_json(found)
    elif delete:
        console.print(f"What was said in {plain(request)} is removed.")
    else:
        typer.echo(f"{found['asked']}\n\n{found['answered']}")


@app.command()
def key(as_json: Json = False) -> None:
    """The public key that the checkpoints are signed with: for whoever audits."""
    from freehold.secure import audit

    with errors_in_a_sentence(as_json), _reader(load.home(), None) as reader:
        public = audit.public_key(reader).public_bytes_raw().hex()
    if as_json:
        print_json({"public_key": public})
    else:
        typer.echo(public)


@app.command()
def begin(as_json: Json = False) -> None:
    """Begin a new file of checkpoints with the records as they are now: after the old one was
    lost, or was moved to whoever audits. The gateway must be stopped."""
    with errors_in_a_sentence(as_json):
        home = load.home()
        wanted = load.settings(home.settings).audit
        with reach.offline(home, checkpoints=wanted, begin=True) as (store, _, _):
            file = store.fact(store.own("audit_checkpoints"))
    if as_json:
        print_json({"checkpoints": file})
    else:
        console.print(f"What is recorded from now on is signed in {plain(file or '')}.")


@app.command()
def verify(
    database: Annotated[
        str | None,
        typer.Option(help="A copy of freehold.db, or a postgresql:// URL; else this home's."),
    ] = None,
    checkpoints_: Annotated[
        Path | None, typer.Option("--checkpoints", help="A copy of the checkpoints' folder.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Only what was signed from this day on (UTC)."),
    ] = None,
    public_key: Annotated[
        str | None, typer.Option(help="As `freehold audit key` told it, in hex.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every record against its chain and the signed checkpoints, without a gateway;
    names the first bad record of each stream and fails when there is one."""
    from freehold.secure.audit import unproven

    with errors_in_a_sentence(as_json):
        home = load.home()
        day = since.date().isoformat() if since else ""
        with _reader(home, database) as reader, stderr.status("Verifying…"):
            counts, findings = _verified(reader, checkpoints_, public_key, day)
            if findings and database is None and home.is_locked():
                time.sleep(_SETTLES_S)
                counts, findings = _verified(reader, checkpoints_, public_key, day)
            others = unproven(reader, counts)
    if others:
        stderr.print(
            f"Records of {', '.join(others)} are not checked: that takes the checkpoints of those "
            "gateways, one by one."
        )
    if as_json:
        print_json(
            {
                "records": sum(counts.values()),
                "streams": len(counts),
                "findings": [
                    {"stream": f.stream, "number": f.number, "what": f.what} for f in findings
                ],
            }
        )
    else:
        for found in findings:
            console.print(f"Record {found.number} of {found.stream} {found.what}.")
        console.print(f"{sum(counts.values())} records in {len(counts)} streams are sound.")
    if findings:
        raise typer.Exit(1)


def _verified(
    reader: "AuditReader", path: Path | None, public_key: str | None, since: str
) -> tuple[dict[str, int], list["Finding"]]:
    from freehold.secure import audit

    file = path or Path(reader.fact(reader.own("audit_checkpoints")) or "")
    return audit.verified(reader, file, audit.public_key(reader, public_key), since)


@contextlib.contextmanager
def _reader(home: Home, named: str | None) -> Iterator["AuditReader"]:
    from freehold.cli.at_rest.opening import database
    from freehold.store.sqlite import Sqlite
    from freehold.store.subjects import AuditReader

    if named is not None and "://" not in named:
        where: Backend = Sqlite(Path(named))
    else:
        settings = load.settings(home.settings, overrides={"database.url": named})
        where = database(home, settings.database)
    if isinstance(where, Sqlite) and not where.path.exists():
        raise UserError(
            Code.NOT_FOUND, f"There is no database {where.path}: name one by --database."
        )
    reader = AuditReader(where)
    try:
        yield reader
    finally:
        reader.close()


def _page(
    home: Home, of: Of, level: Level, limit: int, sought: Mapping[str, Any]
) -> dict[str, Any]:
    given = {name: value for name, value in sought.items() if value is not None}
    asked = {**of.named(), **given, "level": level.value, "limit": limit}
    gateway = reach.running(home)
    found: dict[str, Any]
    if gateway is not None:
        found = gateway.call("GET", _PATH, query=asked)
        return found
    from freehold.cli.at_rest.opening import open_subjects
    from freehold.serve.admin.audit import AuditQuery, audit_page
    from freehold.serve.reading import validated

    with reach.offline(home, to_look=True) as (store, _, _):
        stream = stream_at(level, *of.resting(store))
        wanted, subjects = validated(AuditQuery, asked), open_subjects(home, store)
        found = audit_page(store, subjects, stream, wanted)
        return found


def _content(home: Home, of: Of, request: str, is_deleted: bool) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        path = f"{_PATH}/content/{reach.quoted(request)}"
        method = "DELETE" if is_deleted else "GET"
        found: dict[str, Any] = gateway.call(method, path, query=of.named())
        return found
    from freehold.cli.at_rest.opening import open_subjects
    from freehold.serve.admin.content import content_of, no_content

    with reach.offline(home) as (store, _, _):
        place = of.resting(store)
        if not is_deleted:
            return content_of(store, open_subjects(home, store), *place, request)
        if not store.remove_content(*place, request):
            raise no_content(request)
        return {"request": request, "removed": True}


def _row(each: dict[str, Any], body: dict[str, Any]) -> list[str]:
    """One record for people; kinds differ in what they have."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(body["at_us"] / 1e6))
    what = str(body.get("act") or body.get("action") or body["kind"])
    about = str(body.get("name") or body.get("object") or "")
    if body["kind"] == "request":
        digests = [str(body[name])[7:19] for name in ("base", "adapter") if body[name]]
        what, about = body["model"], " ".join(digests)
    elif body["kind"] == "refusals":
        about = ", ".join(f"{count} {code}" for code, count in body["counts"].items())
    elif "records" in body:
        about = ", ".join(map(str, body["records"]))
    outcome = str(body.get("error") or body.get("outcome") or "")
    who = str(body.get("principal") or "")
    return [str(each["number"]), at, who, _known(each["personal"]), what, about, outcome]


def _known(personal: dict[str, str] | str | None) -> str:
    if not isinstance(personal, dict):
        return personal or ""
    shown = ("name", "email", "subject", "user", "address", "about")
    return ", ".join(personal[name] for name in shown if name in personal)
