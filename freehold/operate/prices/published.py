"""What providers ask for their models, by the installed version of genai-prices.

Nothing here asks the network. The lists take 70 MB once they are imported, and a gateway wants
a few of their lines once, at its start. So a process of its own reads them, and ends.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from typing import TYPE_CHECKING

import orjson

from freehold.core.errors import Code, UserError
from freehold.core.price import Price, Rates, micro, read_price
from freehold.engines.child import clean_environment

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice as ModelPrices
    from genai_prices.types import TieredPrices

Wanted = tuple[str, str]  # the address of a provider, and its name of a model
_TIMEOUT_S = 60


def look_up(wanted: Sequence[Wanted], rate: Decimal | None) -> Mapping[Wanted, Price]:
    """Of those that are listed. `rate` is what a dollar costs; None where nobody knows."""
    if not wanted or rate is None:
        return {}
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=orjson.dumps([str(rate), wanted]),
            capture_output=True,
            timeout=_TIMEOUT_S,
            env=clean_environment(),
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        raise UserError(
            Code.CONFIG_INVALID,
            "The price lists of genai-prices cannot be read: install Freehold again, or write the "
            "prices of your upstreams under prices.models.",
        ) from None
    return {
        (url, model): Price(read.rates, read.tiers, source)
        for url, model, written, source in orjson.loads(ended.stdout)
        for read in [read_price(written)]
    }


def main() -> None:
    rate, wanted = orjson.loads(sys.stdin.buffer.read())
    found = [(url, model, _published(url, model, Decimal(rate))) for url, model in wanted]
    rows = [
        (url, model, price.written, price.source)
        for url, model, price in found
        if price is not None
    ]
    sys.stdout.buffer.write(orjson.dumps(rows))


def _published(url: str, model: str, rate: Decimal) -> Price | None:
    """What the provider at this address asks for its model; None where that is not known."""
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, found = get_snapshot().find_provider_model(model, None, None, url)
    except LookupError:
        return None
    return _converted(found.get_prices(datetime.now(UTC)), rate)


def _converted(prices: "ModelPrices", rate: Decimal) -> Price | None:
    from genai_prices.types import TieredPrices

    base = _rates(prices, 0, rate)
    if base is None:
        return None
    tiered = [each for each in vars(prices).values() if isinstance(each, TieredPrices)]
    starts = sorted({tier.start for each in tiered for tier in each.tiers})
    steps = tuple(
        (start, step) for start in starts if (step := _rates(prices, start, rate)) is not None
    )
    return Price(base, steps, f"genai-prices {version('genai-prices')}")


def _rates(prices: "ModelPrices", tokens_in: int, rate: Decimal) -> Rates | None:
    """For a request with so many tokens in."""
    read = _at(prices.input_mtok, tokens_in)
    if read is None:
        return None
    made, cached = _at(prices.output_mtok, tokens_in), _at(prices.cache_read_mtok, tokens_in)
    values = read, made or Decimal(0), read if cached is None else cached
    return Rates(*(micro(value * rate) for value in values))


def _at(price: "Decimal | TieredPrices | None", tokens_in: int) -> Decimal | None:
    if price is None or isinstance(price, Decimal):
        return price
    chosen = price.base
    for tier in price.tiers:
        if tier.start <= tokens_in:
            chosen = tier.price
    return chosen


if __name__ == "__main__":
    main()
