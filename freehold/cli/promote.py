"""`freehold promote`, `freehold rollback` and `freehold promotion`: revisions into the next
environment, and back."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli.options.owner import EnvironmentOption, Of, TenantOption
from freehold.cli.reaching import reach
from freehold.cli.reaching.resources import offline, one
from freehold.cli.terminal import interrupt
from freehold.cli.terminal.new_file import check_new, moved
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    labelled,
    plain,
    print_json,
    table,
)
from freehold.config import load
from freehold.config.home import Home
from freehold.core.binding import Environment
from freehold.core.words import size

if TYPE_CHECKING:
    from freehold.cli.at_rest.routes import Offline

_PATH = "/admin/v1/promotions"
_BY_HAND = "set by hand"
_LIMIT = 100
Alias = Annotated[str, typer.Argument(help="What clients call the model.")]

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="What was promoted, and how it does."
)


def promote(
    alias: Alias,
    to: Annotated[Environment, typer.Option(help="staging or prod.")],
    source: Annotated[
        Environment | None, typer.Option("--from", help="Default: the environment before.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="What another installation exported (`freehold promotion export`)."),
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.01, max=100, help="Of a hundred conversations.")
    ] = 100.0,
    force: Annotated[
        str | None, typer.Option(help="Why, although something speaks against it.")
    ] = None,
    accept_licence: Annotated[
        str | None, typer.Option(help="Why a licence that needs a reason allows this use.")
    ] = None,
    with_limits: Annotated[
        bool, typer.Option("--with-limits", help="Bring limits, where there are none.")
    ] = False,
    max_errors: Annotated[
        float, typer.Option(min=0, max=100, help="Back at so many more in a hundred; 0: never.")
    ] = 2.0,
    max_latency: Annotated[
        float, typer.Option(min=0, help="Back at so many times the p95 of before; 0: never.")
    ] = 1.5,
    max_thumbs_down: Annotated[
        float, typer.Option(min=0, max=100, help="Back at so many more in a hundred; 0: never.")
    ] = 10.0,
    judge: Annotated[str | None, typer.Option(help="A route that marks answers of both.")] = None,
    max_worse: Annotated[
        float, typer.Option(min=0.01, max=10, help="Back when marked worse by so much of ten.")
    ] = 1.0,
    watch_minutes: Annotated[
        float, typer.Option(min=0, help="How long it is watched once it has everything.")
    ] = 60.0,
    least: Annotated[int, typer.Option(min=1, help="Requests before anything is said of it.")] = 20,
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Let what an alias leads to into the next environment, whole or with a share of the
    conversations. With --file it is what another installation exported. It is beside what answers
    there; again with another --share, it gets that."""
    body: dict[str, Any] = {
        "alias": alias,
        "source": source and source.value,
        "share": share,
        "force": force,
        "accept_licence": accept_licence,
        "with_limits": with_limits,
        "watch": {
            "errors": max_errors / 100,
            "latency": max_latency,
            "thumbs": max_thumbs_down / 100,
            "judge": judge,
            "score": max_worse,
            "least": least,
            "minutes": watch_minutes,
        },
    }
    with errors_in_a_sentence(as_json), interrupt.once():
        found = _promote(load.home(), Of(tenant, to), body, file and file.expanduser())
    if as_json:
        print_json(found)
    else:
        _say(found)


def rollback(
    alias: Alias,
    reason: Annotated[str | None, typer.Option(help="What is remembered of it.")] = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Let an alias lead to what it led to before its last promotion. Of one that is shared, the
    share is taken back. New requests go there at once, running ones finish as they began."""
    body = {"alias": alias, "reason": reason}
    with errors_in_a_sentence(as_json):
        found = _roll_back(load.home(), Of(tenant, environment or Environment.PROD), body)
    if as_json:
        print_json(found)
        return
    before = found["before"]
    led = "leads nowhere now" if before is None else f"leads to {_revision(before)} again"
    console.print(
        f"{plain(alias)} in {found['environment']} {led}; {found['id']} was rolled back.",
        soft_wrap=True,
    )


@app.command()
def export(
    alias: Alias,
    out: Annotated[
        Path | None, typer.Option(help="A new file. Default: ALIAS.fhr, in this folder.")
    ] = None,
    with_examples: Annotated[
        bool,
        typer.Option(
            "--with-examples", help="The evaluation's questions and answers too, not figures alone."
        ),
    ] = False,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Write what an alias leads to into one signed file, for another installation: adapter,
    passed gate, lineage. There: `freehold promote ALIAS --to staging --file FILE`."""
    target = (out or Path(f"{alias.replace('/', '-')}.fhr")).expanduser().absolute()
    body = {"alias": alias, "with_examples": with_examples}
    with errors_in_a_sentence(as_json), interrupt.once():
        found = _export(load.home(), Of(tenant, environment), body, target)
    if as_json:
        print_json(found | {"file": str(target)})
        return
    told = f"Wrote {target} ({size(target.stat().st_size)}): {found['adapter']} on {found['base']} "
    told += f"with {found['gate']}, signed by the key {found['signed_by'][:16]}."
    console.print(plain(told), soft_wrap=True)
    console.print(
        "It counts where that key is trusted: `freehold adapter keys --json` has it for "
        "supply.trusted_installations there.",
        soft_wrap=True,
    )
    if found["forgotten"]:
        console.print(
            "[yellow]Note:[/yellow] the adapter was trained on words of somebody who was "
            "forgotten, and whoever takes the file in has it too: train it again without them.",
            soft_wrap=True,
        )


@app.command("list")
def list_promotions(
    alias: Annotated[str | None, typer.Argument(help="Only of this alias.")] = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """List what was promoted into an environment (prod, unless said), the newest first."""
    of = Of(tenant, environment or Environment.PROD)
    with errors_in_a_sentence(as_json):
        found = _list(load.home(), of, alias)
    if as_json:
        print_json(found)
        return
    table(
        ["id", "alias", "from", "adapter", "share", "state", "evidence", "by", "since"],
        [
            [
                each["id"],
                each["alias"],
                _source(each),
                each["adapter"] or "the bare base",
                f"{each['share']:g} %",
                each["state"].replace("_", " "),
                _evidence(each),
                each["made_by"],
                each["made_at"][:19],
            ]
            for each in found
        ],
        "Nothing was promoted there: `freehold promote ALIAS --to staging`.",
    )


@app.command()
def show(
    promotion: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Show a promotion: what moved, on which evidence, and how it does beside what answered
    before."""
    of = Of(tenant, environment or Environment.PROD)
    with errors_in_a_sentence(as_json):
        found = _show(load.home(), of, promotion)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _promote(home: Home, of: Of, body: dict[str, Any], file: Path | None) -> dict[str, Any]:
    if file is not None:
        reach.require_here("Revisions from elsewhere are let in")
    gateway = reach.running(home)
    with nullcontext() if file is None else _uploaded(home, file) as ticket:
        body = body | {"upload": ticket}
        if gateway is not None:
            found: dict[str, Any] = gateway.call("POST", _PATH, body | of.named())
            return found
        from freehold.serve.admin.promotions import shown_promotion
        from freehold.serve.promotions import NewPromotion
        from freehold.serve.reading import validated

        with offline(home, of) as rest:
            promotion, notes = rest.promote(validated(NewPromotion, body))
            return shown_promotion(promotion) | {"notes": notes}


@contextmanager
def _uploaded(home: Home, file: Path) -> Iterator[str]:
    from freehold.catalog import adapters, exporting, revision_file

    revision_file.check_kind(file)
    ticket = adapters.laid(home.path, {exporting.FILE: file})
    try:
        yield ticket
    finally:
        adapters.unstage(home.path, ticket)


def _export(home: Home, of: Of, body: dict[str, Any], target: Path) -> dict[str, Any]:
    from freehold.catalog import adapters, exporting

    reach.require_here("Revisions are exported")
    gateway = reach.running(home)
    check_new(target)
    ticket = adapters.laid(home.path, {})
    try:
        body = body | {"download": ticket}
        if gateway is not None:
            found: dict[str, Any] = gateway.call("POST", f"{_PATH}/export", body | of.named())
        else:
            from freehold.serve.admin.promotions import shown_export
            from freehold.serve.promotions import NewExport
            from freehold.serve.reading import validated

            with offline(home, of) as rest:
                found = shown_export(rest.export(validated(NewExport, body)))
        moved(adapters.staging(home.path) / ticket / exporting.FILE, target)
        return found
    finally:
        adapters.unstage(home.path, ticket)


def _roll_back(home: Home, of: Of, body: dict[str, Any]) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        found: dict[str, Any] = gateway.call("POST", "/admin/v1/rollbacks", body | of.named())
        return found
    from freehold.serve.admin.promotions import shown_promotion

    with offline(home, of) as rest:
        return shown_promotion(_back_at_rest(rest, body))


def _back_at_rest(rest: "Offline", body: dict[str, Any]) -> Any:
    last = rest.promoting().last(rest.owner, body["alias"])
    because = body["reason"] or "somebody asked for it"
    moved = rest.store.roll_back(rest.owner[0], last, last.before, because, "local", rest.now_us())
    return moved.promotion


def _list(home: Home, of: Of, alias: str | None) -> list[dict[str, Any]]:
    gateway = reach.running(home)
    if gateway is not None:
        asked = of.named() | ({} if alias is None else {"alias": alias})
        found: list[dict[str, Any]] = gateway.call("GET", _PATH, query=asked)["data"]
        return found
    from freehold.serve.admin.promotions import shown_promotion

    with offline(home, of) as rest:
        kept = rest.store.promotions(*rest.owner, _LIMIT, None, alias)
        return [shown_promotion(each) for each in kept]


def _show(home: Home, of: Of, promotion_id: str) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        return one(gateway, "GET", _PATH, promotion_id, of)
    from freehold.serve.admin.promotions import shown_promotion
    from freehold.store.promotions import no_promotion

    with offline(home, of) as rest:
        found = rest.store.promotion(*rest.owner, promotion_id)
        if found is None:
            raise no_promotion(promotion_id)
        return shown_promotion(found)


def _say(found: dict[str, Any]) -> None:
    what = found["adapter"] or "the bare base"
    where = f"{plain(found['alias'])} in {found['environment']}"
    if found["state"] == "sharing":
        told = f"{found['share']:g} of a hundred conversations with {where} go to {plain(what)}"
    else:
        told = f"{where} leads to {plain(what)}"
    console.print(f"{told}, from {plain(_source(found))} ({found['id']}).", soft_wrap=True)
    console.print(f"Evidence: {plain(_evidence(found))}.", soft_wrap=True)
    for note in found["notes"]:
        console.print(plain(note), soft_wrap=True)
    if found["state"] == "sharing":
        command = f"freehold promotion show {found['id']} --env {found['environment']}"
        console.print(
            f"`{command}` shows both beside each other; --share 100 gives it all, "
            "`freehold rollback` takes it back.",
            soft_wrap=True,
        )


def _source(found: dict[str, Any]) -> str:
    there = found["elsewhere"]
    if there is None:
        return str(found["source"] or _BY_HAND)
    return f"{found['source']} of {there['by']} (key {there['key'][:16]})"


def _evidence(found: dict[str, Any]) -> str:
    if found["forced"]:
        return f"forced over {', '.join(found['overridden'])}: {found['forced']}"
    return str(found["gate"] or "no adapter")


def _print(found: dict[str, Any]) -> None:
    bundle, watch = found["bundle"], found["watch"]
    labelled(
        [
            ("alias", found["alias"]),
            ("into", f"{found['environment']}, from {_source(found)}"),
            ("state", f"{found['state'].replace('_', ' ')}, {found['share']:g} %"),
            ("evidence", _evidence(found)),
            ("licences", found["accepted_licence"] or "allow it"),
            ("adapter", f"{found['adapter'] or 'none'} ({bundle['adapter'] or 'the bare base'})"),
            ("base", bundle["base"]),
            ("tokenizer", bundle["tokenizer"]),
            ("chat template", bundle["template"] or "none"),
            ("dataset", bundle["dataset"] or "not known"),
            ("policies", ", ".join(bundle["policies"]) or "the installation's"),
            ("limits brought", len(bundle["limits"])),
            ("before", _revision(found["before"]) if found["before"] else "nowhere"),
            ("made", f"{found['made_at'][:19]} by {found['made_by']}"),
            ("taken back", _ended(found)),
            ("watched", _watched(watch)),
        ]
    )
    if found["figures"]:
        console.print()
        _beside(found["figures"])


def _beside(figures: dict[str, Any]) -> None:
    new, old = figures["new"], figures["old"]
    names = (
        ("requests", "requests"),
        ("failed", "failed"),
        ("first token p50, ms", "ttft_ms_p50"),
        ("first token p95, ms", "ttft_ms_p95"),
        ("between tokens p95, ms", "token_ms_p95"),
        ("mark of the judge, of 10", "mark"),
        ("thumbs up", "thumbs_up"),
        ("thumbs down", "thumbs_down"),
    )
    rows = [
        [told, *("–" if side.get(name) is None else str(side[name]) for side in (new, old))]
        for told, name in names
        if new.get(name) is not None or old.get(name) is not None
    ]
    table(["", "this revision", "before"], rows, "")


def _ended(found: dict[str, Any]) -> str:
    if found["ended_at"] is None:
        return "no"
    return f"{found['ended_at'][:19]} by {found['ended_by']}: {found['ended_because']}"


def _watched(watch: dict[str, Any]) -> str:
    told = []
    if watch["errors"] is not None:
        told.append(f"{watch['errors'] * 100:g} more failures in a hundred")
    if watch["latency"] is not None:
        told.append(f"{watch['latency']:g} times the p95")
    if watch["thumbs"] is not None:
        told.append(f"{watch['thumbs'] * 100:g} more thumbs down in a hundred")
    if watch["judge"] is not None:
        told.append(f"{watch['judge']} marks it worse by {watch['score']:g}")
    if not told:
        return "no"
    return f"taken back at {' or '.join(told)}; for {watch['seconds'] / 60:g} min once whole"


def _revision(before: dict[str, Any]) -> str:
    digest = before["adapter_digest"] or before["base_digest"] or ""
    return f"{'adapter' if before['adapter_digest'] else 'base'} {digest[:19]}"
