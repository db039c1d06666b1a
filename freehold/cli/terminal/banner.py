"""What `freehold up` prints once it serves."""

import asyncio
import dataclasses
import time
from dataclasses import dataclass

from freehold.catalog import known
from freehold.cli.terminal.output import console, print_json, rate
from freehold.config.home import Home
from freehold.core.binding import Priority
from freehold.core.engine import COMPLETIONS, EngineCall
from freehold.core.model import ModelCard, QualityTrial, Task
from freehold.core.words import size
from freehold.deploy.autotune import Records, settings_for
from freehold.deploy.probe import read_machine
from freehold.deploy.quality import measured_of
from freehold.serve.gateway import Gateway

_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Facts:
    url: str
    cards: list[ModelCard]
    first_key: str | None
    orphans: int
    newer_schema: str | None
    as_json: bool


async def show(gateway: Gateway, home: Home, facts: Facts) -> None:
    speeds = [await _measure(gateway, card) for card in facts.cards]
    if facts.as_json:
        _print(gateway, home, facts, speeds)
        return
    console.print(f"\n[bold]Freehold serves at {facts.url}/v1[/bold]")
    for card, speed in zip(facts.cards, speeds, strict=True):
        _show_model(gateway, home, card, speed)
    for upstream in gateway.settings.upstreams:
        aliases = ", ".join(model.alias for model in upstream.models)
        console.print(f"  upstream  {upstream.name}: {aliases}")
    if facts.orphans:
        console.print(
            f"  [yellow]{facts.orphans} requests of a gateway that died were settled.[/yellow]"
        )
    if facts.newer_schema is not None:
        console.print(
            f"  [yellow]The database was made by a newer Freehold (schema {facts.newer_schema}): "
            "what only that version knows is not heeded, so upgrade again soon.[/yellow]",
            soft_wrap=True,
        )
    if facts.first_key is not None:
        console.print("  admin key, shown this once:")
        console.print(f"  {facts.first_key}", soft_wrap=True)
    console.print(f"  key file  {home.admin_key}")
    _show_try(home, facts)


def _print(gateway: Gateway, home: Home, facts: Facts, speeds: list[float | None]) -> None:
    losses = [_quality(gateway, home, card) for card in facts.cards]
    models = [
        {
            "name": card.name,
            "digest": card.digest,
            "licence": card.licence.spdx,
            "quantization": card.quantization,
            "smoke": card.smoke,
            "engine": gateway.pools[card.name].engine,
            "streams": gateway.pools[card.name].capabilities.concurrency,
            "tokens_per_s": speed,
            "quality": lost and dataclasses.asdict(lost),
        }
        for card, speed, lost in zip(facts.cards, speeds, losses, strict=True)
    ]
    upstreams = [
        {"name": upstream.name, "models": [model.alias for model in upstream.models]}
        for upstream in gateway.settings.upstreams
    ]
    print_json(
        {
            "url": f"{facts.url}/v1",
            "models": models,
            "upstreams": upstreams,
            "settled_orphans": facts.orphans,
            "newer_schema": facts.newer_schema,
            "key_file": str(home.admin_key),
            "admin_key": facts.first_key,
        }
    )


def _quality(gateway: Gateway, home: Home, card: ModelCard) -> QualityTrial | None:
    """What was measured of the formats that it is served in."""
    used = settings_for(card, gateway.settings.engines, Records(home.cache))
    return measured_of(card, gateway.pools[card.name].engine, used.openvino)


def _show_model(gateway: Gateway, home: Home, card: ModelCard, speed: float | None) -> None:
    licence = card.licence.spdx + (" (waived)" if card.licence.waiver else "")
    console.print(f"  model     {card.name}, {card.quantization}, {size(card.size_bytes)}")
    console.print(f"  licence   {licence}")
    console.print(f"  digest    {card.digest}")
    pool = gateway.pools[card.name]
    said = f", measured {rate(speed)} on one stream" if speed else ""
    console.print(f"  engine    {pool.engine}, {pool.capabilities.concurrency} streams{said}")
    lost = _quality(gateway, home, card)
    if lost is not None and lost.exceeds_bound:
        console.print(
            f"  [yellow]quality   {lost.weights} weights with kv_cache {lost.kv_cache} lose "
            f"{lost.mean_kl_nats:.2f} nats, beyond the quality bound: choose others "
            f"(`freehold model show {card.name}`).[/yellow]",
            soft_wrap=True,
        )
    if card.conversion is not None:
        console.print(
            f"  format    {card.conversion.from_quantization} as fetched; {card.quantization} "
            "measured fastest here within the quality bound (`freehold model show`)"
        )
    if card.smoke:
        _show_better()


def _show_better() -> None:
    machine = read_machine()
    better = known.best_fitting(machine.memory_bytes)
    console.print("  [yellow]This is a smoke model: it proves the installation, not more.[/yellow]")
    if better is not None:
        console.print(
            f"  best fit  {better.name} for {machine.memory_bytes / 2**30:.0f} GiB: "
            f"freehold model pull {better.name} && freehold up --model {better.name}"
        )


async def _measure(gateway: Gateway, card: ModelCard) -> float | None:
    """Tokens a second of one greedy stream, from the first token to the last."""
    if card.task is not Task.CHAT:
        return None
    body = {"prompt": "Once upon a time", "max_tokens": _TOKENS, "temperature": 0}
    call = EngineCall(COMPLETIONS, card.digest, body, "speed")
    first: float | None = None
    count = 0
    async with (
        asyncio.timeout(60),
        gateway.pools[card.name].lease("", Priority.INTERACTIVE) as lease,
        lease.client.stream(call) as answer,
    ):
        while (chunks := await answer.read()) is not None:
            first = first or time.perf_counter()
            count += sum(bool(chunk["choices"]) for chunk in chunks)
    elapsed = time.perf_counter() - (first or 0)
    return (count - 1) / elapsed if count > 1 and elapsed > 0 else None


def _show_try(home: Home, facts: Facts) -> None:
    chat = [card for card in facts.cards if card.task is Task.CHAT]
    for card in (chat or facts.cards)[:1]:
        endpoint, asked = "embeddings", '"input":"Hello!"'
        if chat:
            endpoint = "chat/completions"
            asked = '"messages":[{"role":"user","content":"Hello!"}]'
        console.print("\nTry it:")
        console.print(
            f'  curl {facts.url}/v1/{endpoint} -H "Authorization: Bearer '
            f'$(cat {home.admin_key})" -H "Content-Type: application/json" '
            f'-d \'{{"model":"{card.name}",{asked}}}\'',
            soft_wrap=True,
            markup=False,
        )
    if chat:
        console.print("  freehold chat")
    console.print("\nCtrl-C stops it.")
