"""What the models cost: by the settings, by lists, or by what was measured here."""

from collections.abc import Mapping, Sequence

from freehold.config.home import Home
from freehold.config.schema import ModelPrice, Settings
from freehold.core.model import ModelCard
from freehold.deploy.pool import Pool
from freehold.deploy.probe import Machine, read_machine
from freehold.deploy.speed import Speed, Speeds
from freehold.deploy.speed import measure as measure_speed
from freehold.operate.prices import pricing
from freehold.operate.prices.published import look_up
from freehold.serve.gateway import Gateway
from freehold.serve.prices import Machine as MachineCost
from freehold.serve.prices import Prices


def build_prices(
    home: Home, settings: Settings, cards: Sequence[ModelCard], serving: Mapping[str, Pool]
) -> Prices:
    """What is known without asking an engine; the others' is measured once they serve."""
    machine = read_machine()
    made = Prices(_cost(settings, machine))
    given = {each.model: each for each in settings.prices.models}
    _put_upstreams(made, settings, given)
    speeds = Speeds(home.cache, machine)
    for card in cards:
        if card.name in given:
            made.put("", card.digest, pricing.of_settings(given[card.name]))
        elif (speed := speeds.find(card, serving[card.name].engine)) is not None:
            _price_here(made, card, speed)
    return made


def micro_per_hour(settings: Settings) -> int | None:
    """What this machine costs, on a home that no gateway serves."""
    cost = _cost(settings, read_machine())
    return None if cost is None else cost.micro_per_hour


def _cost(settings: Settings, machine: Machine) -> MachineCost | None:
    return pricing.machine_cost(settings.prices, settings.currency, machine)


def _put_upstreams(made: Prices, settings: Settings, given: Mapping[str, ModelPrice]) -> None:
    bought = [(upstream, model) for upstream in settings.upstreams for model in upstream.models]
    rate = pricing.for_a_dollar(settings.prices, settings.currency)
    asked = [(up.base_url, model.upstream_name) for up, model in bought if model.alias not in given]
    listed = look_up(asked, rate)
    for upstream, model in bought:
        own = given.get(model.alias)
        price = (
            listed.get((upstream.base_url, model.upstream_name))
            if own is None
            else pricing.of_settings(own)
        )
        if price is not None:
            made.put(upstream.name, model.upstream_name, price)


def _price_here(made: Prices, card: ModelCard, speed: Speed) -> None:
    if made.machine is not None:
        made.put("", card.digest, pricing.of_machine(made.machine, speed))


async def measure_prices(gateway: Gateway, home: Home, cards: Sequence[ModelCard]) -> None:
    """What tokens cost on this machine, of the models that have no price yet."""
    priced = {digest for engine, digest, _ in gateway.prices.rows() if not engine}
    unpriced = [card for card in cards if card.digest not in priced]
    if not unpriced:
        return
    speeds = Speeds(home.cache, read_machine())
    for card in unpriced:
        pool = gateway.pools[card.name]
        speed = await measure_speed(pool, card)
        if speed is not None:
            speeds.keep(card, pool.engine, speed)
            _price_here(gateway.prices, card, speed)
