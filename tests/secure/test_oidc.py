"""Which tokens are believed: every way in which one can be wrong, against a real provider."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from freehold.core.errors import Code, UserError
from freehold.secure.oidc import Claims, Provider, Trusted
from tests.issuer import (
    AUDIENCE,
    EC,
    ED,
    RSA,
    RSA_FOREIGN,
    RSA_NEW,
    Issuer,
    content,
    public,
    serving,
    token,
)


@dataclass
class Time:
    """Stands still until it is moved."""

    now_s: float = field(default_factory=lambda: float(int(time.time())))

    def wall_us(self) -> int:
        return int(self.now_s * 1_000_000)

    def monotonic_s(self) -> float:
        return self.now_s


@pytest_asyncio.fixture(name="issuer")
async def _issuer() -> AsyncIterator[Issuer]:
    async with serving() as issuer:
        yield issuer


@pytest.fixture(name="clock")
def _clock() -> Time:
    return Time()


@pytest.fixture(name="provider")
def _provider(issuer: Issuer, clock: Time) -> Provider:
    return Provider(
        Trusted(issuer.url, (AUDIENCE, "other-client"), ("RS256", "ES256", "EdDSA")), clock
    )


def _content(issuer: Issuer, clock: Time, **changes: Any) -> dict[str, Any]:
    return content(issuer, clock.now_s, **changes)


def _token(issuer: Issuer, clock: Time, *how: Any, **changes: Any) -> str:
    return token(issuer, clock.now_s, *how, **changes)


def _b64(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


async def test_a_sound_token_says_who_it_is(
    provider: Provider, issuer: Issuer, clock: Time
) -> None:
    expected = Claims(
        issuer.url, "ada", frozenset({"ml", "all"}), "ada@example.org",
        (int(clock.now_s) + 300) * 1_000_000, int(clock.now_s) * 1_000_000,
    )  # fmt: skip
    for each in (
        _token(issuer, clock),
        _token(issuer, clock, EC, "ES256", {"kid": "ec"}),
        _token(issuer, clock, ED, "EdDSA", {"kid": "ed"}),
        _token(issuer, clock, headers={"typ": "at+jwt"}),
        _token(issuer, clock, aud=["somebody", "other-client"]),
    ):
        assert await provider.claims(each) == expected
    assert issuer.asked == 1


def _none(issuer: Issuer, clock: Time) -> str:
    return f"{_b64({'alg': 'none', 'kid': 'rsa'})}.{_b64(_content(issuer, clock))}."


def _hmac_with_the_public_key(issuer: Issuer, clock: Time) -> str:
    """The old confusion: the provider's public key taken for a shared secret."""
    import hashlib
    import hmac

    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{_b64({'alg': 'HS256', 'kid': 'rsa'})}.{_b64(_content(issuer, clock))}"
    mac = hmac.digest(pem, signed.encode(), hashlib.sha256)
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _other_content(issuer: Issuer, clock: Time) -> str:
    header, _, signature = _token(issuer, clock).split(".")
    return f"{header}.{_b64(_content(issuer, clock, sub='root'))}.{signature}"


def _others_signature(issuer: Issuer, clock: Time) -> str:
    """Two sound tokens of two people, the signatures swapped."""
    ours, theirs = (_token(issuer, clock, sub=sub) for sub in ("ada", "bob"))
    return ours.rpartition(".")[0] + "." + theirs.rpartition(".")[2]


def _own_key(issuer: Issuer, clock: Time) -> str:
    """It brings the key along that it is signed with."""
    return _token(
        issuer, clock, RSA_FOREIGN, headers={"jwk": public(("rsa", RSA_FOREIGN)), "kid": "rsa"}
    )


Maker = Callable[[Issuer, Time], str]
WRONG: dict[str, tuple[Maker, str]] = {
    "alg none": (_none, "algorithm"),
    "alg none, other case": (lambda i, c: _none(i, c).replace(_b64({"alg": "none", "kid": "rsa"}),
                             _b64({"alg": "nOnE", "kid": "rsa"})), "algorithm"),
    "hmac with the public key": (_hmac_with_the_public_key, "algorithm"),
    "an algorithm not listed": (lambda i, c: _token(i, c, algorithm="RS512"), "algorithm"),
    "a key of another algorithm": (lambda i, c: _token(i, c, EC, "ES256"), "another algorithm"),
    "a foreign key": (lambda i, c: _token(i, c, RSA_FOREIGN), "signature"),
    "its own key": (_own_key, "signature"),
    "an unknown key": (lambda i, c: _token(i, c, headers={"kid": "x"}), "not among"),
    "no key named": (lambda i, c: _token(i, c, headers={"kid": None}), "not among"),
    "other content": (_other_content, "signature"),
    "another token's signature": (_others_signature, "signature"),
    "no signature": (lambda i, c: _token(i, c).rsplit(".", 1)[0] + ".", "signature"),
    "cut off": (lambda i, c: _token(i, c)[:-8], ""),
    "two parts": (lambda i, c: _token(i, c).rsplit(".", 1)[0], "JWT"),
    "no JSON": (lambda i, c: "e30.e.e", "JWT"),
    "another issuer": (lambda i, c: _token(i, c, iss="https://evil.example"), "issuer"),
    "the issuer with a slash": (lambda i, c: _token(i, c, iss=i.url + "/"), "issuer"),
    "no issuer": (lambda i, c: _token(i, c, iss=...), "iss"),
    "another audience": (lambda i, c: _token(i, c, aud="mail"), "somebody else"),
    "the start of the audience": (lambda i, c: _token(i, c, aud="free"), "somebody else"),
    "no audience": (lambda i, c: _token(i, c, aud=...), "aud"),
    "an empty audience": (lambda i, c: _token(i, c, aud=[]), "aud"),
    "no end": (lambda i, c: _token(i, c, exp=...), "exp"),
    "an end that is text": (lambda i, c: _token(i, c, exp="never"), "exp"),
    "an end beyond time": (lambda i, c: _token(i, c, exp=1e300), "exp"),
    "no beginning": (lambda i, c: _token(i, c, iat=...), "iat"),
    "made tomorrow": (lambda i, c: _token(i, c, iat=int(c.now_s) + 61), "not valid yet"),
    "not yet valid": (lambda i, c: _token(i, c, nbf=int(c.now_s) + 61), "not valid yet"),
    "no subject": (lambda i, c: _token(i, c, sub=...), "sub"),
    "an empty subject": (lambda i, c: _token(i, c, sub=""), "subject"),
    "an endless subject": (lambda i, c: _token(i, c, sub="a" * 256), "subject"),
    "a token of another kind": (lambda i, c: _token(i, c, headers={"typ": "logout+jwt"}), "kind"),
    "a demand": (lambda i, c: _token(i, c, headers={"crit": ["exp"], "exp": 1}), ""),
    "too long": (lambda i, c: _token(i, c, more="a" * 20_000), "long"),
    "empty": (lambda i, c: "", "JWT"),
}  # fmt: skip


def test_there_are_thirty_ways_to_be_wrong() -> None:
    assert len(WRONG) >= 30


@pytest.mark.parametrize("what", list(WRONG))
async def test_a_wrong_token_is_refused_with_the_reason(
    provider: Provider, issuer: Issuer, clock: Time, what: str
) -> None:
    make, said = WRONG[what]
    token = make(issuer, clock)
    for _ in range(2):  # nothing of it is remembered
        with pytest.raises(UserError, match="is not accepted") as caught:
            await provider.claims(token)
        assert caught.value.code is Code.INVALID_TOKEN
        assert said in str(caught.value)
        assert token not in str(caught.value) or not token


async def test_tokens_end_also_those_that_are_remembered(
    provider: Provider, issuer: Issuer, clock: Time
) -> None:
    token = _token(issuer, clock)
    await provider.claims(token)
    clock.now_s += 359
    await provider.claims(token)
    clock.now_s += 1
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            await provider.claims(token)
        assert caught.value.code is Code.EXPIRED_TOKEN


async def test_tokens_that_begin_alike_are_not_taken_for_each_other(
    provider: Provider, issuer: Issuer, clock: Time
) -> None:
    long = {"note": "a" * 150}
    tokens = [_token(issuer, clock, headers=long, sub=who) for who in ("ada", "bob")]
    assert tokens[0][:200] == tokens[1][:200]
    assert [(await provider.claims(token)).subject for token in tokens] == ["ada", "bob"]


async def test_a_new_key_of_the_provider_is_fetched_once_a_minute_at_most(
    provider: Provider, issuer: Issuer, clock: Time
) -> None:
    await provider.claims(_token(issuer, clock))
    issuer.keys = {"new": RSA_NEW}
    new = _token(issuer, clock, RSA_NEW, headers={"kid": "new"})
    for number in range(30):
        with pytest.raises(UserError):
            await provider.claims(_token(issuer, clock, headers={"kid": f"x{number}"}))
    assert issuer.asked == 1  # a flood of made-up names reaches no provider
    clock.now_s += 61
    assert (await provider.claims(new)).subject == "ada"
    assert issuer.asked == 2
    with pytest.raises(UserError, match="not among"):
        await provider.claims(_token(issuer, clock, sub="bob"))  # by the key that is gone


async def test_a_provider_with_one_key_need_not_name_it(
    provider: Provider, issuer: Issuer, clock: Time
) -> None:
    issuer.keys = {"only": RSA}
    unnamed = {"kid": None}
    assert (await provider.claims(_token(issuer, clock, headers=unnamed))).subject == "ada"
    issuer.keys = {"next": RSA_NEW}
    clock.now_s += 61
    new = _token(issuer, clock, RSA_NEW, headers=unnamed, sub="bob")
    assert (await provider.claims(new)).subject == "bob"
    with pytest.raises(UserError, match="signature"):
        await provider.claims(_token(issuer, clock, headers=unnamed, sub="cy"))


async def test_many_tokens_at_once_fetch_the_keys_once(
    provider: Provider, issuer: Issuer, clock: Time
) -> None:
    tokens = [_token(issuer, clock, sub=f"user{i}") for i in range(20)]
    found = await asyncio.gather(*map(provider.claims, tokens))
    assert [each.subject for each in found] == [f"user{i}" for i in range(20)]
    assert issuer.asked == 1


async def test_an_outage_of_the_provider_is_bridged_for_a_day(
    provider: Provider, issuer: Issuer, clock: Time
) -> None:
    await provider.claims(_token(issuer, clock))
    issuer.is_down = True
    clock.now_s += 23 * 3600
    assert (await provider.claims(_token(issuer, clock, sub="bob"))).subject == "bob"
    clock.now_s += 2 * 3600
    with pytest.raises(UserError, match="cannot be fetched") as caught:
        await provider.claims(_token(issuer, clock, sub="cy"))
    assert caught.value.code is Code.PROVIDER_UNREACHABLE
    assert caught.value.retry_after_s
    issuer.is_down = False
    clock.now_s += 61
    assert (await provider.claims(_token(issuer, clock, sub="cy"))).subject == "cy"


async def test_a_provider_that_calls_itself_otherwise_is_not_believed(
    provider: Provider, issuer: Issuer, clock: Time
) -> None:
    issuer.about = {"issuer": "https://other.example"}
    with pytest.raises(UserError) as caught:
        await provider.claims(_token(issuer, clock))
    assert caught.value.code is Code.PROVIDER_UNREACHABLE


@pytest.mark.parametrize("address", ["http://keys.example/", "file:///etc/passwd", 7, None])
async def test_keys_are_fetched_from_a_safe_address_only(
    provider: Provider, issuer: Issuer, clock: Time, address: object
) -> None:
    issuer.about = {"jwks_uri": address}
    with pytest.raises(UserError) as caught:
        await provider.claims(_token(issuer, clock))
    assert caught.value.code is Code.PROVIDER_UNREACHABLE


async def test_keys_that_are_no_use_do_not_hide_those_that_are(
    provider: Provider, issuer: Issuer, clock: Time
) -> None:
    shared = {"kty": "oct", "k": _b64("secret"), "kid": "shared"}
    issuer.more = [
        shared, {"kty": "new"}, {"kid": "rsa2"}, {**public(("enc", RSA)), "use": "enc"},
    ]  # fmt: skip
    assert (await provider.claims(_token(issuer, clock))).subject == "ada"
    for kid in ("shared", "enc"):
        with pytest.raises(UserError, match="not among"):
            await provider.claims(_token(issuer, clock, headers={"kid": kid}))


@pytest.mark.parametrize(
    "trusted",
    [
        Trusted("http://login.example", ("a",)),
        Trusted("https://user:password@login.example", ("a",)),
        Trusted("https://login.example", ()),
        Trusted("https://login.example", ("a",), ("HS256",)),
        Trusted("https://login.example", ("a",), ("none",)),
        Trusted("https://login.example", ("a",), ()),
    ],
)
def test_settings_that_would_prove_nothing_are_refused(trusted: Trusted) -> None:
    with pytest.raises(UserError) as caught:
        Provider(trusted, Time())
    assert caught.value.code is Code.CONFIG_INVALID
