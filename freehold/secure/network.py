"""Where a request comes from: the peer of the connection, or whom a trusted proxy names."""

import ipaddress
from collections.abc import Collection, Sequence
from functools import lru_cache

from freehold.core.errors import Code, UserError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_REMEMBERED = 4096
_V6_SITE = 64  # what one customer gets: its addresses count as one


def network(text: str) -> Network:
    """Raises `UserError(INVALID_VALUE)` unless it is an address or a network in CIDR."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UserError(
            Code.INVALID_VALUE,
            f"{text[:60]!r} is no network: write one as 10.0.0.0/8 or 2001:db8::/32.",
            param="networks",
        ) from None


def address(text: str) -> Address | None:
    """None for what is no address. An IPv4 address within IPv6 is that IPv4 address."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    inner = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return inner or found


def is_within(peer: str, networks: Collection[str]) -> bool:
    found = address(peer)
    return found is not None and any(found in network(each) for each in networks)


def covers(outer: Collection[str] | None, inner: Collection[str] | None) -> bool:
    """Whether who may come from `inner` only comes from `outer`; None is everywhere."""
    if outer is None:
        return True
    if inner is None:
        return False
    wide = [network(each) for each in outer]
    return all(any(_is_part(network(each), whole) for whole in wide) for each in inner)


def _is_part(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)


def place(peer: str) -> str:
    """Who counts as one when guesses are counted: an IPv4 address, an IPv6 site."""
    found = address(peer)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, _V6_SITE), strict=False))
    return peer if found is None else str(found)


@lru_cache(maxsize=_REMEMBERED)
def prefix(peer: str) -> str:
    """The network around an address: a /24, or a site of IPv6."""
    found = address(peer)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, 48), strict=False))
    return peer if found is None else str(ipaddress.ip_network((found, 24), strict=False))


class Proxies:
    """The proxies whose word about their clients counts. Nobody else's does. With addresses
    and certificates (names of theirs), who connects must have both."""

    def __init__(self, trusted: Sequence[str], certificates: Collection[str] = ()) -> None:
        self._networks = [network(each) for each in trusted]
        self._certificates = frozenset(certificates)
        self._verdicts: dict[str, bool] = {}

    def client(self, peer: str, forwarded: str, certificate: Collection[str] = ()) -> str:
        """Whom the request is from. `forwarded` is X-Forwarded-For: each proxy adds at its
        end whom it heard it from, so that it is read from there, as far as it is said by
        trusted ones. What is no address is not believed, nor what stands before it."""
        names = forwarded.split(",") if forwarded else []
        if self._certificates and self._certificates.isdisjoint(certificate):
            return peer
        if not self._networks:  # its certificate alone makes it one, and it speaks for itself
            said = address(names[-1].strip()) if names else None
            return peer if said is None else str(said)
        while names and self._is_trusted(peer):
            said = address(names.pop().strip())
            if said is None:
                return peer
            peer = str(said)
        return peer

    def _is_trusted(self, peer: str) -> bool:
        verdict = self._verdicts.get(peer)
        if verdict is None:
            found = address(peer)
            verdict = found is not None and any(found in each for each in self._networks)
            if len(self._verdicts) >= _REMEMBERED:
                self._verdicts.clear()
            self._verdicts[peer] = verdict
        return verdict
