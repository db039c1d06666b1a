"""`freehold lineage`: where the answers of an alias come from."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from freehold.cli.options.owner import EnvironmentOption, Of, TenantOption
from freehold.cli.reaching import reach
from freehold.cli.reaching.resources import offline
from freehold.cli.terminal.output import (
    Json,
    errors_in_a_sentence,
    in_a_line,
    labelled,
    plain,
    print_json,
    stderr,
)
from freehold.config import load
from freehold.config.home import Home
from freehold.core.errors import Code, UserError

_PATH = "/admin/v1/lineage"
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S%z"]
_OUTSIDE = "not known: added from outside"


def lineage(
    alias: Annotated[str | None, typer.Argument(help="What clients ask for.")] = None,
    at: Annotated[
        datetime | None, typer.Option(formats=_TIMES, help="Then (UTC), and not now.")
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(help="One answer: its id, or that in its header x-freehold-request-id."),
    ] = None,
    bom: Annotated[
        Path | None, typer.Option(help="Write it as a CycloneDX ML-BOM into this file.")
    ] = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Show where answers come from: base, adapter, data, training, evaluation, promotion."""
    with errors_in_a_sentence(as_json):
        if alias is None and request is None:
            raise UserError(Code.INVALID_VALUE, "Name an alias, or an answer with --request.")
        asked = {"alias": alias, "at": at and at.isoformat(), "request": request}
        query = {name: value for name, value in asked.items() if value is not None}
        found, made = _found(load.home(), Of(tenant, environment), query)
        if bom is not None:
            _write(bom, made)
    if bom is not None:
        stderr.print(f"Wrote {plain(bom)}.", soft_wrap=True)
    if as_json:
        print_json(found)
    elif bom is None:
        _show(found)


def _found(home: Home, of: Of, query: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The lineage, and the same as a BOM."""
    from freehold.catalog.bom import bom

    gateway = reach.running(home)
    if gateway is not None:
        found: dict[str, Any] = gateway.call("GET", _PATH, query=of.named() | query)
        return found, bom(found)
    from freehold.serve.admin.lineage import LineageQuery
    from freehold.serve.reading import validated

    asked = validated(LineageQuery, query)
    with offline(home, of) as rest:
        if asked.request is not None:
            found = rest.lineages.of_request(rest.owner, asked.request, asked.alias)
        else:
            at_us = rest.now_us() if asked.at_us is None else asked.at_us
            found = rest.lineages.of_alias(rest.owner, asked.alias or "", at_us)
        return found, bom(found)


def _write(path: Path, made: dict[str, Any]) -> None:
    from freehold.catalog.bom import written

    try:
        path.expanduser().write_bytes(written(made))
    except OSError as error:
        raise UserError(
            Code.INVALID_VALUE, f"{path} cannot be written ({error.strerror}): name another file."
        ) from None


def _show(found: dict[str, Any]) -> None:
    where = f"{found['alias']} in {found['environment']}"
    told = f"the answer to {found['request']}" if found["request"] else "as of"
    labelled(
        (
            ("answer", f"{where}, {told} {found['at'][:19]}"),
            ("route", _route(found)),
            ("base", _base(found["base"])),
            *_adapter(found),
            *_dataset(found),
            ("training", _job(found)),
            *_evidence(found),
        )
    )


def _route(found: dict[str, Any]) -> str:
    if found["since"] is None:
        return "not known: the alias led elsewhere then, or has a share of requests"
    by = f"set by {found['set_by']}" if found["set_by"] else "not set by a person"
    return f"since {found['since'][:19]}, {by}"


def _base(base: dict[str, Any] | None) -> str:
    if base is None:
        return "remote: its weights are not proved"
    if base["name"] is None:
        return f"{base['digest']} (not known: it never served here)"
    licence = base["licence"]
    waiver = f", accepted: {licence['waiver']}" if licence["waiver"] else ""
    removed = "" if base["is_stored"] else ", removed since"
    return f"{base['name']} {base['digest']}, {licence['spdx']}{waiver}, {base['source']}{removed}"


def _adapter(found: dict[str, Any]) -> list[tuple[str, str]]:
    adapter = found["adapter"]
    if adapter is None:
        return [("adapter", "none: the base itself")]
    if adapter["name"] is None:
        return [("adapter", f"{adapter['digest']} (not known: removed before this was kept)")]
    removed = f", removed {adapter['removed_at'][:10]}" if adapter["removed_at"] else ""
    signed = [
        f"{each['by'] or 'an unknown key'}{'' if each['holds'] else ' (does not hold)'}"
        for each in adapter["signatures"]
    ]
    return [
        (
            "adapter",
            f"{adapter['name']} {adapter['digest']}, rank {adapter['rank']}, "
            f"{adapter['source']}{removed}",
        ),
        ("signed by", ", ".join(signed) or "nobody"),
        ("recipe", in_a_line(adapter["recipe"] or {}) or _OUTSIDE),
        ("made with", in_a_line(adapter["made_with"] or {}) or _OUTSIDE),
        ("tokenizer", adapter["tokenizer_digest"] or _OUTSIDE),
        ("template", adapter["template_digest"] or _OUTSIDE),
    ]


def _dataset(found: dict[str, Any]) -> list[tuple[str, str]]:
    dataset = found["dataset"]
    if found["adapter"] is None:
        return []
    if dataset is None:
        return [("data", _OUTSIDE)]
    if dataset["name"] is None:
        return [("data", f"{dataset['digest']} (not known: it was never here)")]
    removed = f", removed {dataset['removed_at'][:10]}" if dataset["removed_at"] else ""
    said = (
        f"{dataset['name']}@{dataset['version']} {dataset['digest']}, {dataset['licence']}, "
        f"{dataset['origin']}, {dataset['train']:,} to train and {dataset['held_out']:,} held "
        f"out{removed}"
    )
    if not dataset["findings"]:
        return [("data", said)]
    accepted = f"accepted by {dataset['created_by']}: {dataset['accepted']}"
    return [("data", said), ("findings", f"{'; '.join(dataset['findings'])} ({accepted})")]


def _job(found: dict[str, Any]) -> str:
    if found["adapter"] is None:
        return "none"
    job = found["job"]
    if job is None:
        return _OUTSIDE
    return (
        f"{job['id']} by {job['created_by']}, {job['created_at'][:19]}: {in_a_line(job['figures'])}"
    )


def _of(each: dict[str, Any]) -> str:
    """Who else decided it, or had it before."""
    there = each["elsewhere"]
    return f" of {there['by']} (key {there['key'][:16]})" if there else ""


def _from(each: dict[str, Any]) -> str:
    return f" from {each['source']}{_of(each)}" if each["elsewhere"] else ""


def _verdict(each: dict[str, Any]) -> str:
    return f"{each['name']} {each['found']} (needs {each['needed']})"


def _evidence(found: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        (
            "gate",
            f"{each['id']} {'passed' if each['passed'] else 'failed'} {each['suite']} in "
            f"{each['environment']}{_of(each)}, {each['made_at'][:19]} by {each['made_by']}: "
            + "; ".join(
                f"{v['name']} {v['found']} (needs {v['needed']})" for v in each["verdicts"]
            ),
        )
        for each in found["gates"]
    ] or [("gate", "none: it was not evaluated here")]
    return rows + [
        (
            "promotion",
            f"{each['id']} to {each['environment']}{_from(each)}, {each['made_at'][:19]} by "
            f"{each['made_by']}, {each['state']}"
            + (f", forced: {each['forced']}" if each["forced"] else ""),
        )
        for each in found["promotions"]
    ]
