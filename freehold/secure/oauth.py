"""What is said to a provider when somebody logs in: RFC 6749 with PKCE (RFC 7636), and with a
device (RFC 8628). Who sends it waits for the answer in a way of its own."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from freehold.config.trust import LOOPBACK
from freehold.core.secret import Secret

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass(frozen=True, slots=True)
class Client:
    """As the provider knows it. Without a secret only PKCE shows that it is the same."""

    id: str
    secret: Secret | None = None
    secret_in_body: bool = False

    def signed(self, form: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """A request as this client's: its fields and its headers."""
        if self.secret is None:
            return {**form, "client_id": self.id}, {}
        if self.secret_in_body:
            return {**form, "client_id": self.id, "client_secret": self.secret.reveal()}, {}
        # RFC 6749, section 2.3.1: each is written like a form's field first.
        both = f"{quote(self.id, safe='')}:{quote(self.secret.reveal(), safe='')}"
        return dict(form), {"authorization": f"Basic {base64.b64encode(both.encode()).decode()}"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one login is known by: `state` by the browser that began it, `nonce` by its ID
    token, `verifier` by who exchanges its code."""

    state: str
    nonce: str
    verifier: str
    redirect: str


def authorization_url(
    endpoint: str, client: Client, scopes: Sequence[str], attempt: Attempt
) -> str:
    """Where a browser is sent. What the endpoint's own query says stays."""
    challenge = hashlib.sha256(attempt.verifier.encode()).digest()
    asked = {
        "response_type": "code",
        "client_id": client.id,
        "redirect_uri": attempt.redirect,
        "scope": " ".join(scopes),
        "state": attempt.state,
        "nonce": attempt.nonce,
        "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    parts = urlsplit(endpoint)
    query = urlencode([*parse_qsl(parts.query), *asked.items()])
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def exchange(code: str, attempt: Attempt) -> dict[str, str]:
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": attempt.redirect,
        "code_verifier": attempt.verifier,
    }


def refresh(token: str) -> dict[str, str]:
    return {"grant_type": "refresh_token", "refresh_token": token}


def device_poll(code: str) -> dict[str, str]:
    return {"grant_type": DEVICE_GRANT, "device_code": code}


def is_safe(address: str) -> bool:
    """Whether what is said there is neither heard nor changed on the way."""
    parts = urlsplit(address)
    if parts.username or parts.password or not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
