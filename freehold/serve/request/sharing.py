"""Which of two revisions answers a request, while one is tried on a share of them."""

import hashlib

import orjson

from freehold.core.binding import Candidate, Principal, Route
from freehold.serve.protocol.bodies import Body

_MOST_BYTES = 8192


def has_candidate(
    candidate: Candidate, principal: Principal, label: str | None, body: Body
) -> bool:
    """Always the same for one conversation, so that nobody talks with two: by the conversation's
    or the user's label where the request has one, else by how the conversation begins. Another
    candidate shares out anew."""
    who = label or body.data.get("user") or body.data.get("safety_identifier")
    kept = f"{principal.account} {who}".encode() if who else _beginning(body)
    hashed = hashlib.sha256(b"%b %b" % (candidate.route.id.encode(), kept)).digest()
    return int.from_bytes(hashed[:8], "big") < candidate.share * 2**64


def _beginning(body: Body) -> bytes:
    """What does not change as the conversation goes on: all before the first answer."""
    data = body.data
    asked = data.get("messages") or data.get("input") or data.get("prompt") or ""
    if isinstance(asked, list):
        until = next((at for at, each in enumerate(asked) if _is_answer(each)), len(asked))
        asked = asked[:until]
    return orjson.dumps(asked)[:_MOST_BYTES]


def _is_answer(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") == "assistant"


def chosen(
    route: Route, principal: Principal, label: str | None, body: Body, *, is_served: bool
) -> Route:
    """`is_served`: whether the candidate can answer at all; what answered before does so else."""
    candidate = route.candidate
    if candidate is None or not is_served:
        return route
    return candidate.route if has_candidate(candidate, principal, label, body) else route
