"""What the models that are served cost."""

from dataclasses import dataclass

from freehold.core.binding import Route
from freehold.core.price import Price


@dataclass(frozen=True, slots=True)
class Machine:
    """What the machine costs, and the share of its time that prices suppose it busy."""

    micro_per_hour: int
    busy: float
    source: str
    is_assumed: bool


class Prices:
    """By what computes: a base's digest, or an upstream and its name for a model. What is
    not there has no price that anybody knows."""

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine = machine
        self._found: dict[tuple[str, str], Price] = {}

    def put(self, engine: str, model: str, price: Price) -> None:
        """`engine` is the upstream's name, and empty for what runs here; `model` its name
        for the model, or the base's digest."""
        self._found[engine, model] = price

    def of(self, route: Route) -> Price | None:
        if route.base_digest is not None:
            return self._found.get(("", route.base_digest))
        return self._found.get((route.pool, route.engine_model))

    def rows(self) -> list[tuple[str, str, Price]]:
        return [(engine, model, price) for (engine, model), price in self._found.items()]
