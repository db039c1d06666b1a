"""What a browser carries for us: its session, and that it began to log in.

With TLS the names begin with `__Host-`: a browser takes such a cookie only over TLS, from
this very host, and sends it nowhere else.
"""

import hmac

from freehold.core.errors import Code, UserError
from freehold.secure.sessions import PREFIX
from freehold.serve.wire import Header, Scope, header

_SESSION, _LOGIN = "freehold-session", "freehold-login"
_MAX_CHARACTERS = 4096


class Cookies:
    """Of the gateway that browsers find at `origin`."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self._is_secure = origin.startswith("https:")
        self._prefix = "__Host-" if self._is_secure else ""

    def session_of(self, scope: Scope) -> str | None:
        """Nothing else counts in a cookie, a key for one: a browser sends it unasked."""
        found = _of(scope, self._prefix + _SESSION)
        return found if found is not None and found.startswith(PREFIX) else None

    def login_of(self, scope: Scope) -> str | None:
        return _of(scope, self._prefix + _LOGIN)

    def session(self, value: str, lasts_s: int) -> Header:
        return self._set(_SESSION, value, lasts_s)

    def login(self, value: str, lasts_s: int) -> Header:
        return self._set(_LOGIN, value, lasts_s)

    def no_session(self) -> Header:
        return self._set(_SESSION, "", 0)

    def no_login(self) -> Header:
        return self._set(_LOGIN, "", 0)

    def check_same_origin(self, scope: Scope) -> None:
        """Raises `UserError(CROSS_SITE)` unless the browser says that our own page asks. It
        says so in headers that no page can write."""
        site, origin = header(scope, b"sec-fetch-site"), header(scope, b"origin")
        is_told = site is not None or origin is not None
        if not is_told or site not in (None, "same-origin") or origin not in (None, self.origin):
            raise _cross_site()

    def _set(self, name: str, value: str, lasts_s: int) -> Header:
        flags = "HttpOnly; SameSite=Lax" + ("; Secure" if self._is_secure else "")
        text = f"{self._prefix}{name}={value}; Path=/; Max-Age={lasts_s}; {flags}"
        return b"set-cookie", text.encode()


def check_proof(shown: str | None, right: str) -> None:
    """Raises `UserError(CROSS_SITE)` for what has not read our page."""
    if shown is None or not hmac.compare_digest(shown.encode(), right.encode()):
        raise _cross_site()


def _of(scope: Scope, name: str) -> str | None:
    """None also where there are two of that name: who wrote the second?"""
    found = []
    for key, value in scope["headers"]:
        if key == b"cookie":
            for each in value.decode("latin-1").split(";"):
                given, _, text = each.strip().partition("=")
                if given == name and text:
                    found.append(text)
    return found[0] if len(found) == 1 and len(found[0]) <= _MAX_CHARACTERS else None


def _cross_site() -> UserError:
    return UserError(
        Code.CROSS_SITE,
        "Another site asked for this with your login: nothing was done. Open /console and do it "
        "there.",
    )
