"""How a command reaches the installation: a running gateway by its admin API, or
the store itself (`at_rest/`) when none runs."""

import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from freehold.config.home import Home
from freehold.config.trust import of_gateway
from freehold.core.errors import Code, UserError

if TYPE_CHECKING:
    from freehold.config.schema import AuditSettings
    from freehold.secure.keys import Keyring
    from freehold.store.sql import SqlStore

_CALL_S = 30
# The gateway elsewhere that `freehold --url` or FREEHOLD_URL names, for this command.
elsewhere: ContextVar[str | None] = ContextVar("elsewhere", default=None)


class RunningGateway:
    """The admin API of the gateway that uses this home. `key` is an API key, `operator`
    what this start of the gateway lets the owner of the home in with: to all tenants and
    environments, and to no model. `certificate` is the file that it serves TLS with: it is
    trusted as it is, because its name is not that of this machine. `client` is the one, with
    its key, that the gateway made for commands where it asks clients for theirs. One that is
    elsewhere has no `pid`, and knows people by the session of their login."""

    def __init__(
        self,
        url: str,
        key: str,
        pid: int | None,
        certificate: str | None = None,
        operator: str | None = None,
        client: str | None = None,
    ) -> None:
        self.url = url
        self.pid = pid
        self._key = key
        self._operator = operator or key
        self.verify: ssl.SSLContext | bool = True
        if certificate:
            self.verify = of_gateway(certificate, client)
        elif pid is None:  # of a machine elsewhere, so that its own authorities count
            self.verify = ssl.create_default_context()

    @property
    def key(self) -> str:
        """For models, which the owner of the home needs a key for like anybody."""
        if not self._key:
            raise _no_key("This home has no admin.key any more")
        return self._key

    @property
    def operator(self) -> str:
        """What administers the installation."""
        return self._operator

    def call(
        self, method: str, path: str, body: Any = None, query: dict[str, Any] | None = None
    ) -> Any:
        """The decoded reply. Raises `UserError` with the gateway's own sentence."""
        import httpx2  # a tenth of a second, which what ends before it asks does not take

        credential = self._operator if path.startswith("/admin/") else self.key
        try:
            response = httpx2.request(
                method,
                f"{self.url}{path}",
                json=body,
                params=query,
                headers={"authorization": f"Bearer {credential}"},
                timeout=_CALL_S,
                trust_env=False,
                verify=self.verify,
            )
        except httpx2.HTTPError:
            raise UserError(
                Code.GATEWAY_NOT_RUNNING,
                f"The gateway at {self.url} does not answer: see `freehold status` and its log.",
            ) from None
        except UnicodeEncodeError:
            raise
        except ValueError:  # which no JSON can say
            raise UserError(
                Code.INVALID_VALUE, "A number should be finite: correct what you gave."
            ) from None
        try:
            content = response.json()
            refused = refusal(content) if response.is_error else None
        except (ValueError, KeyError, TypeError):
            raise UserError(
                Code.GATEWAY_NOT_RUNNING,
                f"What answers at {self.url} is no gateway of this version: start it again.",
            ) from None
        if refused is not None:
            raise refused
        return content


def quoted(name: str) -> str:
    """As one part of a path, whatever it holds; `..` would be taken out by the client."""
    return quote(name, safe="").replace(".", "%2E")


def refusal(content: Any) -> UserError:
    """What the gateway said no with. Raises `ValueError`, `KeyError` or `TypeError` for
    what no gateway of this version says."""
    error = content["error"]
    return UserError(Code(error["code"]), error["message"], param=error["param"])


def running(home: Home) -> RunningGateway | None:
    """The gateway that was named, else that of this home; None when none runs."""
    named = elsewhere.get()
    if named is not None:
        from freehold.cli.reaching.logins import session

        return RunningGateway(named, os.environ.get("FREEHOLD_API_KEY") or session(named), None)
    try:
        record = json.loads(home.gateway_record.read_text())
        os.kill(record["pid"], 0)
    except (FileNotFoundError, ProcessLookupError, ValueError, KeyError, TypeError):
        return None
    except PermissionError:
        raise UserError(
            Code.HOME_IN_USE, f"A gateway of another user runs on {home.path}: ask that user."
        ) from None
    if not home.is_locked():  # it was killed, and its number is now somebody else's
        return None
    operator = None if os.environ.get("FREEHOLD_API_KEY") else record.get("operator")
    key = "" if operator and not home.admin_key.exists() else admin_key(home)
    return RunningGateway(
        record["url"],
        key,
        record["pid"],
        record.get("certificate"),
        operator,
        record.get("client_certificate"),
    )


def require_here(what: str) -> None:
    """Raises `UserError` where a gateway elsewhere was named."""
    if elsewhere.get() is not None:
        raise not_here(what)


def not_here(what: str) -> UserError:
    return UserError(
        Code.CONFIG_INVALID, f"{what} on the machine of the gateway: go there, without --url."
    )


def require_running(home: Home) -> RunningGateway:
    gateway = running(home)
    if gateway is None:
        raise UserError(
            Code.GATEWAY_NOT_RUNNING,
            f"No gateway runs on {home.path}: start one with `freehold up`.",
        )
    return gateway


def admin_key(home: Home) -> str:
    key = os.environ.get("FREEHOLD_API_KEY")
    if key:
        return key
    try:
        return home.admin_key.read_text().strip()
    except OSError:
        raise _no_key(f"{home.admin_key} cannot be read") from None


def _no_key(why: str) -> UserError:
    return UserError(
        Code.MISSING_API_KEY,
        f"{why}: put a key with the admin scope into the environment variable FREEHOLD_API_KEY.",
    )


@contextmanager
def offline(
    home: Home,
    *,
    to_look: bool = False,
    checkpoints: "AuditSettings | None" = None,
    begin: bool = False,
) -> Iterator[tuple["SqlStore", "Keyring", str]]:
    """The store, the keyring and the default tenant: see `at_rest/opening.py`."""
    # What opens a store takes longer to import than a running gateway takes to answer.
    from freehold.cli.at_rest.opening import opened

    with opened(home, to_look=to_look, checkpoints=checkpoints, begin=begin) as found:
        yield found
