"""`freehold login`, `logout`, `whoami`: who you are at a gateway.

With a device where the provider can: you say yes in a browser on whatever machine. Else in a
browser on this one, which comes back to a port of its own (RFC 8252).
"""

import base64
import http.server
import json
import secrets
import time
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

import typer

from freehold.cli.reaching import logins, reach
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    plain,
    print_json,
    stderr,
)
from freehold.config import load
from freehold.core.errors import Code, UserError
from freehold.secure.oauth import (
    Attempt,
    Client,
    authorization_url,
    device_poll,
    exchange,
    is_safe,
)

_SLOWER_S, _USUAL_S = 5, 5  # RFC 8628, sections 3.5 and 3.2
_MOST_S = 1800
_BROWSER_S = 300

UrlOption = Annotated[
    str | None,
    typer.Option("--url", envvar="FREEHOLD_URL", help="The gateway; else that of this home."),
]


@dataclass(frozen=True, slots=True)
class Provider:
    """What the gateway and the provider say of how commands log in."""

    issuer: str
    client: Client
    scopes: tuple[str, ...]
    token: str
    authorization: str | None
    device: str | None


def login(
    provider: Annotated[
        str | None, typer.Option(help="As the gateway calls it; not needed where there is one.")
    ] = None,
    url: UrlOption = None,
    browser: Annotated[
        bool, typer.Option("--browser", help="In a browser on this machine, without a code.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Log in at a gateway with your identity provider; commands with --url then act as you."""
    with errors_in_a_sentence(as_json):
        gateway = _url(url)
        chosen = _provider(gateway, provider)
        tell: Callable[[str], None] = stderr.print if as_json else console.print
        if chosen.device is not None and not browser:
            answer = _by_device(chosen, tell)
        else:
            answer = _by_browser(chosen, tell)
        made = logins.exchanged(gateway, _id_token(answer), answer, chosen.client.id, chosen.token)
        me = _whoami(gateway, made.secret)
    if as_json:
        print_json({"url": gateway, "person": me["id"], "tenant": me["tenant"]["name"]})
    else:
        console.print(
            f"Logged in at {plain(gateway)} as {me['id']} of {plain(me['tenant']['name'])}."
        )


def logout(url: UrlOption = None, as_json: Json = False) -> None:
    """End your session at a gateway, and forget it here."""
    with errors_in_a_sentence(as_json):
        gateway = _url(url)
        kept = logins.find(gateway)
        if kept is None:
            raise UserError(Code.INVALID_SESSION, f"You are not logged in at {gateway}.")
        logins.forget(gateway)
        path = f"{gateway}/admin/v1/sessions/current"
        try:
            logins.of_gateway(
                gateway, logins.asked("DELETE", path, headers=logins.bearer(kept.secret))
            )
        except UserError as error:
            if error.code is not Code.INVALID_SESSION:  # which has ended anyway
                raise
    if as_json:
        print_json({"url": gateway, "logged_in": False})
    else:
        console.print(f"Logged out at {plain(gateway)}.")


def whoami(as_json: Json = False) -> None:
    """Show who you are at the gateway, and what you may."""
    with errors_in_a_sentence(as_json):
        gateway = reach.require_running(load.home())
        me = gateway.call("GET", "/admin/v1/whoami")
    if as_json:
        print_json(me)
        return
    rows = [
        ("you are", f"{me['id']} ({me['kind']})"),
        ("tenant", me["tenant"]["name"]),
        ("environment", me["environment"]),
        ("roles", ", ".join(me["roles"])),
        ("groups", ", ".join(me["groups"] or ())),
        ("models", ", ".join(me["models"])),
        ("gateway", gateway.url),
    ]
    for label, value in rows:
        console.print(f"{label:<12} {plain(value)}", soft_wrap=True)


def _url(named: str | None) -> str:
    if named is not None:
        return logins.checked(named)
    chosen = reach.elsewhere.get()
    return chosen if chosen is not None else reach.require_running(load.home()).url


def _provider(gateway: str, name: str | None) -> Provider:
    said = logins.of_gateway(gateway, logins.asked("GET", f"{gateway}/admin/v1/login"))
    found = [each for each in said["data"] if name in (None, each["name"], each["issuer"])]
    if len(found) != 1:
        names = ", ".join(each["name"] for each in said["data"])
        told = f"has these providers for commands: {names}. Choose one with --provider."
        if not names:
            told = "has no provider for commands: its operator sets `cli_client_id` of one."
        raise UserError(Code.NOT_FOUND, f"{gateway} {told}")
    (chosen,) = found
    about = _about(chosen["issuer"])
    if about.get("token_endpoint") is None:
        raise _failed("the provider does not say where tokens are")
    return Provider(
        chosen["issuer"],
        Client(chosen["client_id"]),
        tuple(chosen["scopes"]),
        about["token_endpoint"],
        about.get("authorization_endpoint"),
        about.get("device_authorization_endpoint"),
    )


def _about(issuer: str) -> dict[str, str]:
    """The provider's endpoints, those that are safe to use."""
    if not is_safe(issuer):
        raise _failed("the provider is at no https address")
    answer = logins.asked("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    found = _content(answer)
    if found.get("issuer") != issuer:
        raise _failed("the provider calls itself otherwise")
    return {
        name: value for name, value in found.items() if isinstance(value, str) and is_safe(value)
    }


def _by_device(provider: Provider, tell: Callable[[str], None]) -> dict[str, Any]:
    form, headers = provider.client.signed({"scope": " ".join(provider.scopes)})
    begun = _content(logins.asked("POST", provider.device or "", data=form, headers=headers))
    try:
        code, shown, where = begun["device_code"], begun["user_code"], begun["verification_uri"]
        wait_s = float(begun.get("interval", _USUAL_S))
        ends_s = time.monotonic() + min(float(begun["expires_in"]), _MOST_S)
    except (KeyError, TypeError, ValueError):
        raise _failed(_why(begun)) from None
    tell(f"Open {plain(begun.get('verification_uri_complete') or where)}")
    tell(f"and see that it shows the code {plain(shown)}.")
    while time.monotonic() < ends_s:
        time.sleep(wait_s)
        form, headers = provider.client.signed(device_poll(code))
        answer = _content(logins.asked("POST", provider.token, data=form, headers=headers))
        error = answer.get("error")
        if error is None:
            return answer
        if error == "slow_down":
            wait_s += _SLOWER_S
        elif error != "authorization_pending":
            raise _failed(_why(answer))
    raise _failed("nobody said yes in time")


def _by_browser(provider: Provider, tell: Callable[[str], None]) -> dict[str, Any]:
    if provider.authorization is None:
        raise _failed("the provider does not say where people log in")
    with _Waiting() as waiting:
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        attempt = Attempt(state, nonce, verifier, waiting.url)
        where = authorization_url(provider.authorization, provider.client, provider.scopes, attempt)
        tell(f"Log in at {plain(where)}")
        webbrowser.open(where)
        back = waiting.query()
    if not secrets.compare_digest(back.get("state", ""), attempt.state):
        raise _failed("what came back belongs to another login")
    if "code" not in back:
        raise _failed(_why(back))
    form, headers = provider.client.signed(exchange(back["code"], attempt))
    answer = _content(logins.asked("POST", provider.token, data=form, headers=headers))
    # The gateway checks who signed it; that it is this login's, only we can know.
    if _claims(_id_token(answer)).get("nonce") != attempt.nonce:
        raise _failed("its token belongs to another login")
    return answer


class _Waiting:
    """For the one request that a browser comes back with."""

    def __init__(self) -> None:
        self._back: dict[str, str] = {}
        waiting = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                if parts.path == "/callback":
                    fields = parse_qs(parts.query)
                    waiting._back = {name: values[0] for name, values in fields.items()}
                content = b"You can close this page and go back to the terminal.\n"
                self.send_response(200 if waiting._back else 404)
                self.send_header("content-type", "text/plain")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/callback"

    def __enter__(self) -> "_Waiting":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def query(self) -> dict[str, str]:
        ends_s = time.monotonic() + _BROWSER_S
        while not self._back:
            self._server.timeout = ends_s - time.monotonic()
            if self._server.timeout <= 0:
                raise _failed("no browser came back in time")
            self._server.handle_request()
        return self._back


def _whoami(gateway: str, secret: str) -> dict[str, Any]:
    asked = logins.asked("GET", f"{gateway}/admin/v1/whoami", headers=logins.bearer(secret))
    found: dict[str, Any] = logins.of_gateway(gateway, asked)
    return found


def _id_token(answer: dict[str, Any]) -> str:
    token = answer.get("id_token")
    if not isinstance(token, str):
        raise _failed(_why(answer) if "error" in answer else "the provider sent no ID token")
    return token


def _claims(token: str) -> dict[str, Any]:
    try:
        _, content, _ = token.split(".")
        found = json.loads(base64.urlsafe_b64decode(content + "=" * (-len(content) % 4)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _content(answer: Any) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _failed("the provider answers with something else")
    return found


def _why(answer: dict[str, Any]) -> str:
    said = answer.get("error_description") or answer.get("error") or "nothing that helps"
    return f"the provider says {str(said)[:200]!r}"


def _failed(why: str) -> UserError:
    return UserError(Code.LOGIN_FAILED, f"This login did not work: {why}. Begin it again.")
