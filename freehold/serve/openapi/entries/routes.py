from freehold.core.errors import Code
from freehold.serve.admin.paging import PageQuery
from freehold.serve.openapi.codes import ABOUT_WEIGHTS, OWNED, WITH_BODY, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.owner import OwnQuery
from freehold.serve.replies.routes import Route, RouteList
from freehold.serve.routes import NewRoute

ENTRIES = [
    Entry(
        "get", "/admin/v1/routes", "list_routes", "administration",
        "Where the aliases of this tenant and environment lead", RouteList,
        WITH_QUERY | OWNED, query=PageQuery,
    ),
    Entry(
        "post", "/admin/v1/routes", "set_route", "administration",
        "Let an alias lead to a base or an adapter of it; answers when new requests go there",
        Route,
        WITH_BODY | ABOUT_WEIGHTS | {
            Code.CONFLICT, Code.UNSUPPORTED_PARAMETER, Code.ENGINE_UNAVAILABLE,
            Code.GATE_NOT_PASSED, Code.LICENCE_NOT_ACCEPTED,
            Code.ENGINE_FAILED, Code.ENGINE_TIMEOUT, Code.OVERLOADED,
        },
        NewRoute,
    ),
    Entry(
        "get", "/admin/v1/routes/{alias}", "get_route", "administration",
        "One route", Route, WITH_QUERY | {Code.NOT_FOUND}, query=OwnQuery,
    ),
    Entry(
        "delete", "/admin/v1/routes/{alias}", "remove_route", "administration",
        "Remove a route that was set; one that hides behind it shows again", Route,
        WITH_QUERY | {Code.NOT_FOUND, Code.CONFLICT}, query=OwnQuery,
    ),
]  # fmt: skip
