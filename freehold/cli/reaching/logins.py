"""Where the logins of this user are: one file, which nobody else may read, by gateway."""

import json
import os
import ssl
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from freehold.config.home import write_private
from freehold.core.errors import Code, UserError
from freehold.secure.oauth import Client, is_safe, refresh

CALL_S = 30
_SOON_S = 60  # what ends so soon is renewed first
_NOTED_S = 60


@dataclass(frozen=True, slots=True)
class Login:
    """A session of the gateway, and what gets the next one from the provider."""

    secret: str
    ends_s: int
    idle_s: int
    used_s: int
    client_id: str
    token_endpoint: str
    refresh_token: str | None = None

    def is_over(self, now_s: float) -> bool:
        return now_s + _SOON_S > min(self.ends_s, self.used_s + self.idle_s)


def checked(url: str) -> str:
    """Raises `UserError(CONFIG_INVALID)` unless what is sent there stays between the two."""
    if not is_safe(url) or urlsplit(url).path not in ("", "/"):
        raise UserError(
            Code.CONFIG_INVALID,
            f"{url[:100]!r} is no gateway: name one as https://llm.example.com, or http:// on "
            "this machine.",
        )
    return url.rstrip("/")


def session(url: str) -> str:
    """What shows the gateway who is asking. One that has ended by itself is renewed, if the
    provider gave what that takes; one that was revoked is not."""
    login, now_s = find(url), time.time()
    if login is None:
        raise UserError(
            Code.MISSING_API_KEY,
            f"You are not logged in at {url}: run `freehold login --url {url}`, or put a key into "
            "the environment variable FREEHOLD_API_KEY.",
        )
    if login.is_over(now_s):
        return _renewed(url, login).secret
    if now_s - login.used_s > _NOTED_S:
        keep(url, replace(login, used_s=int(now_s)))
    return login.secret


def find(url: str) -> Login | None:
    found = _read().get(url)
    try:
        return None if found is None else Login(**found)
    except TypeError:  # of another version
        return None


def keep(url: str, login: Login) -> None:
    _write({**_read(), url: asdict(login)})


def forget(url: str) -> None:
    kept = _read()
    if kept.pop(url, None) is not None:
        _write(kept)


def exchanged(url: str, id_token: str, answer: dict[str, Any], client_id: str, at: str) -> Login:
    """The session that the gateway gives for a provider's answer; it is kept."""
    made = asked("POST", f"{url}/admin/v1/sessions", headers=bearer(id_token))
    content = of_gateway(url, made)
    ends_s = time.mktime(time.strptime(content["expires_at"][:19], "%Y-%m-%dT%H:%M:%S"))
    token = answer.get("refresh_token")
    login = Login(
        content["secret"],
        int(ends_s - time.timezone),
        content["idle_s"],
        int(time.time()),
        client_id,
        at,
        token if isinstance(token, str) else None,
    )
    keep(url, login)
    return login


def asked(method: str, url: str, **options: Any) -> httpx2.Response:
    """Raises `UserError(SOURCE_UNREACHABLE)` for what does not answer."""
    try:
        return httpx2.request(
            method,
            url,
            timeout=CALL_S,
            trust_env=False,
            verify=ssl.create_default_context(),
            **options,
        )
    except httpx2.HTTPError:
        raise UserError(
            Code.SOURCE_UNREACHABLE,
            f"{urlsplit(url).netloc} does not answer: check the address and the network.",
        ) from None


def of_gateway(url: str, response: httpx2.Response) -> Any:
    """What it said. Raises `UserError` with its own sentence."""
    from freehold.cli.reaching.reach import refusal

    try:
        content = response.json()
        refused = refusal(content) if response.is_error else None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            Code.GATEWAY_NOT_RUNNING, f"What answers at {url} is no gateway of this version."
        ) from None
    if refused is not None:
        raise refused
    return content


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def _renewed(url: str, login: Login) -> Login:
    over = UserError(
        Code.INVALID_SESSION, f"Your login at {url} has ended: run `freehold login --url {url}`."
    )
    if login.refresh_token is None:
        raise over
    form, headers = Client(login.client_id).signed(refresh(login.refresh_token))
    answer = asked("POST", login.token_endpoint, data=form, headers=headers)
    try:
        content = answer.json()
        token = content["id_token"]
    except (ValueError, KeyError, TypeError):
        forget(url)
        raise over from None
    content.setdefault("refresh_token", login.refresh_token)
    return exchanged(url, token, content, login.client_id, login.token_endpoint)


def _file() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "freehold" / "logins.json"


def _read() -> dict[str, Any]:
    file = _file()
    try:
        if file.stat().st_mode & 0o077:
            raise UserError(
                Code.CONFIG_INVALID,
                f"Others may read {file}: run `chmod 600 {file}`, and log in again if they did.",
            )
        found = json.loads(file.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(content: dict[str, Any]) -> None:
    file = _file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(file, json.dumps(content, indent=2).encode())
