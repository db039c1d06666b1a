"""An option in words."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from freehold.decide.ways.planner import Ranked

_VERBS = {
    "api": "buy",
    "managed": "use an endpoint in your cloud for",
    "rented": "rent machines for",
    "owned": "buy machines for",
    "at_hand": "host here",
    "mixed": "host the base load, and buy the peaks of",
}


def told(best: "Ranked") -> str:
    """What to do, as the rest of a sentence."""
    return f"{_VERBS[best.option.way.value]} {model_of(best)}, {place_of(best)}"


def model_of(each: "Ranked") -> str:
    option = each.option
    return option.model + (f" in {option.precision.value}" if option.precision else "")


def place_of(each: "Ranked") -> str:
    from freehold.decide.ways.at_hand import THIS

    option = each.option
    where = [option.provider, option.region, option.term]
    if option.accelerator is not None and each.sized is not None:
        count = each.sized.replicas * option.accelerators_a_replica
        is_here = option.accelerator == THIS
        where.insert(0, "this machine" if is_here else f"{count} x {option.accelerator}")
    return " ".join(word for word in where if word)
