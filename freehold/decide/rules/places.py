"""Where data is, as providers say it: "us-east-1", "EU (default)", "US (Google Cloud)"."""

from freehold.core.places import AREAS, PLACES

_OTHER_NAMES = {"uk": "gb", "usa": "us", "europe": "eu", "germany": "de", "france": "fr"}
EVERYWHERE = "global"


def place(name: str | None) -> str | None:
    """The country or area that a region is in, or `EVERYWHERE`; None where that is not known."""
    words = (name or "").lower().replace("(", " ").split()
    if not words:
        return None
    if words[0] in PLACES:
        return PLACES[words[0]].country
    code = _OTHER_NAMES.get(words[0], words[0])
    return code if len(code) == 2 or code in AREAS or code == EVERYWHERE else None


def within(region: str | None, allowed: frozenset[str]) -> bool | None:
    """Whether a region lies in one that data may be in; None where nobody can tell, as of an
    area when only one of its countries is allowed."""
    here = place(region)
    if here is None:
        return None
    found = [_is_in(here, place(each) or each.lower()) for each in allowed]
    if True in found:
        return True
    return None if None in found else False


def _is_in(here: str, wanted: str) -> bool | None:
    countries, allowed = AREAS.get(here, {here}), AREAS.get(wanted, {wanted})
    if countries <= allowed:
        return True
    return None if countries & allowed else False


def is_in(region: str | None, area: str) -> bool | None:
    return within(region, frozenset({area}))
