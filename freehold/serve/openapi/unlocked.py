"""The operations that need no key: health, and the pages that browsers see."""

from freehold.core.errors import Code
from freehold.serve.openapi.answers import Schema, as_json, as_text, refusals
from freehold.serve.replies.health import Alive, Ready
from freehold.serve.replies.login import LoginClients


def _page(name: str, summary: str, *statuses: int) -> Schema:
    said = {200: "A page", 303: "Go to another page"}
    answers = {str(each): as_text("text/html", said.get(each, "Why not")) for each in statuses}
    return _open(name, summary, answers)


def _open(name: str, summary: str, responses: Schema) -> Schema:
    """An operation that needs no key."""
    always = refusals({Code.HOST_NOT_ALLOWED, Code.INTERNAL})
    return {
        "operationId": name,
        "tags": ["health"],
        "summary": summary,
        "security": [],
        "responses": {**responses, **always},
    }


_NOT_DONE = (400, 401, 403, 404, 429, 503)
UNLOCKED = {
    "/healthz": {"get": _open("healthz", "The process answers", {"200": as_json(Alive)})},
    "/readyz": {
        "get": _open(
            "readyz",
            "A request could be served now",
            {"200": as_json(Ready), "503": as_json(Ready, "Not now, and why")},
        )
    },
    "/metrics": {"get": _open("metrics", "Prometheus metrics", {"200": as_text("text/plain")})},
    "/admin/v1/login": {
        "get": _open(
            "login_clients",
            "The identity providers that commands log in with",
            {"200": as_json(LoginClients)},
        )
    },
    "/console": {"get": _page("console", "Who is logged in, and what they may", 200, *_NOT_DONE)},
    "/console/login": {
        "get": _page("console_login", "Go to a provider", 200, 303, *_NOT_DONE),
    },
    "/console/callback": {
        "get": _page("console_callback", "Come back from a provider", 303, 409, *_NOT_DONE),
    },
    "/console/logout": {"post": _page("console_logout", "End this session", 303, *_NOT_DONE)},
    "/console/sessions/end": {
        "post": _page("console_end_session", "End one's own session", 303, *_NOT_DONE),
    },
    "/console/style.css": {
        "get": _open("console_style", "How the pages look", {"200": as_text("text/css")}),
    },
}
