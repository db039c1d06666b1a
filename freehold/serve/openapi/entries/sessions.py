from freehold.core.errors import Code
from freehold.serve.admin.sessions import CutOffQuery, SessionsQuery
from freehold.serve.openapi.codes import OWNED, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.owner import TenantQuery
from freehold.serve.replies.sessions import CutOff, NewSession, Session, SessionList

ENTRIES = [
    Entry(
        "get", "/admin/v1/sessions", "list_sessions", "administration",
        "Who of a tenant is logged in", SessionList, WITH_QUERY | OWNED,
        query=SessionsQuery,
    ),
    Entry(
        "post", "/admin/v1/sessions", "open_session", "administration",
        "Exchange the ID token that is sent as the key for a session, once", NewSession,
        frozenset({Code.CONFLICT}), status=201,
    ),
    Entry(
        "delete", "/admin/v1/sessions", "cut_off", "administration",
        "End the sessions of a person or of all, and refuse the tokens that they have",
        CutOff, WITH_QUERY | OWNED, query=CutOffQuery,
    ),
    Entry(
        "delete", "/admin/v1/sessions/current", "close_session", "administration",
        "End the session that is sent as the key", Session,
    ),
    Entry(
        "delete", "/admin/v1/sessions/{session_id}", "end_session", "administration",
        "End a session; doing it again changes nothing", Session, WITH_QUERY | OWNED,
        query=TenantQuery,
    ),
]  # fmt: skip
