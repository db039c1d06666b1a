from freehold.core.errors import Code
from freehold.serve.admin.adapters import NewAdapter
from freehold.serve.admin.paging import PageQuery
from freehold.serve.openapi.codes import ABOUT_WEIGHTS, OWNED, WITH_BODY, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.owner import OwnQuery
from freehold.serve.replies.adapters import Adapter, AdapterList, Verified

ENTRIES = [
    Entry(
        "get", "/admin/v1/adapters", "list_adapters", "administration",
        "The adapters of this tenant and environment, by name", AdapterList,
        WITH_QUERY | OWNED, query=PageQuery,
    ),
    Entry(
        "post", "/admin/v1/adapters", "add_adapter", "administration",
        "Take in an adapter that lies in the home's upload folder; the same again changes "
        "nothing", Adapter,
        WITH_BODY | ABOUT_WEIGHTS | {Code.CONFLICT, Code.DISK_FULL, Code.FILE_INVALID},
        NewAdapter, status=201,
    ),
    Entry(
        "get", "/admin/v1/adapters/{adapter}", "get_adapter", "administration",
        "One adapter, by name or digest", Adapter,
        WITH_QUERY | {Code.NOT_FOUND, Code.CONFLICT}, query=OwnQuery,
    ),
    Entry(
        "delete", "/admin/v1/adapters/{adapter}", "remove_adapter", "administration",
        "Remove an adapter that no route names", Adapter,
        WITH_QUERY | {Code.NOT_FOUND, Code.CONFLICT}, query=OwnQuery,
    ),
    Entry(
        "get", "/admin/v1/adapters/{adapter}/signatures", "verify_adapter", "administration",
        "Read an adapter's files again, and check its signatures over them", Verified,
        WITH_QUERY | {Code.NOT_FOUND, Code.CONFLICT}, query=OwnQuery,
    ),
    Entry(
        "post", "/admin/v1/adapters/{adapter}/signatures", "sign_adapter", "administration",
        "Sign an adapter with the key of this installation", Verified,
        WITH_QUERY | {Code.NOT_FOUND, Code.CONFLICT}, query=OwnQuery, status=201,
    ),
]  # fmt: skip
