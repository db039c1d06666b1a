"""Whom a request is from: the peer, unless a trusted proxy says otherwise."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import Code, UserError
from freehold.secure.network import Proxies, address, covers, is_within, network


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [("10.0.0.1", "", "10.0.0.1"),
     ("10.0.0.1", "192.0.2.7", "192.0.2.7"),
     ("10.0.0.1", "192.0.2.7, 10.0.0.9", "192.0.2.7"),  # two proxies of ours
     ("10.0.0.1", "203.0.113.5, 192.0.2.7", "192.0.2.7"),  # what the client itself sent
     ("10.0.0.1", "10.0.0.2, 203.0.113.5, 192.0.2.7", "192.0.2.7"),
     ("10.0.0.1", "10.0.0.2,10.0.0.3", "10.0.0.2"),  # a client inside the network
     ("10.0.0.1", "2001:db8::5", "2001:db8::5"),
     ("10.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"),
     ("::ffff:10.0.0.1", "192.0.2.7", "192.0.2.7"),
     ("10.0.0.1", "192.0.2.7, unknown", "10.0.0.1"),
     ("10.0.0.1", "192.0.2.7, ", "10.0.0.1"),
     ("10.0.0.1", "192.0.2.7:443", "10.0.0.1"),
     ("192.0.2.99", "203.0.113.5", "192.0.2.99"),  # no proxy of ours: whatever it says
     ("", "203.0.113.5", "")],
)  # fmt: skip
def test_a_trusted_proxy_says_who_its_client_is_and_nobody_else_does(
    peer: str, forwarded: str, client: str
) -> None:
    proxies = Proxies(["10.0.0.0/8"])
    assert proxies.client(peer, forwarded) == client
    assert proxies.client(peer, forwarded) == client


@given(peer=st.ip_addresses().map(str), forwarded=st.text(max_size=80))
def test_the_client_is_an_address_whatever_is_said(peer: str, forwarded: str) -> None:
    found = Proxies(["0.0.0.0/0", "::/0"]).client(peer, forwarded)
    assert address(found) is not None
    assert Proxies(["192.0.2.1"]).client("10.0.0.1", forwarded) == "10.0.0.1"


_networks = st.frozensets(
    st.tuples(st.ip_addresses(v=4), st.integers(20, 32)).map(
        lambda parts: str(ip_network(parts, strict=False))
    ),
    min_size=1, max_size=3,
)  # fmt: skip


@given(outer=_networks, inner=_networks, data=st.data())
def test_what_is_covered_holds_no_address_that_is_not(
    outer: frozenset[str], inner: frozenset[str], data: st.DataObject
) -> None:
    chosen = ip_network(data.draw(st.sampled_from(sorted(inner))))
    peer = str(chosen[data.draw(st.integers(0, chosen.num_addresses - 1))])
    assert is_within(peer, inner)
    if covers(outer, inner):
        assert is_within(peer, outer)
    assert covers(outer, outer)
    assert covers(None, outer)
    assert not covers(outer, None)


@pytest.mark.parametrize("peer", ["", "unknown", "10.0.0.1:80", "10.0.0", "::1%eth0x/8"])
def test_what_is_no_address_is_nowhere(peer: str) -> None:
    assert not is_within(peer, ["0.0.0.0/0", "::/0"])


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "home", "10.0.0.0/8/8", "::/129"])
def test_what_is_no_network_is_told(text: str) -> None:
    with pytest.raises(UserError) as refused:
        network(text)
    assert refused.value.code is Code.INVALID_VALUE
