from freehold.core.errors import Code
from freehold.serve.admin.tenants import NewTenant, RemovalQuery, TenantChange
from freehold.serve.openapi.codes import OWNED, WITH_BODY, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.replies.tenants import Tenant, TenantAndHoldings, TenantList

ENTRIES = [
    Entry(
        "get", "/admin/v1/tenants", "list_tenants", "administration",
        "All tenants", TenantList,
    ),
    Entry(
        "post", "/admin/v1/tenants", "create_tenant", "administration",
        "Make a tenant", Tenant, WITH_BODY | {Code.CONFLICT}, NewTenant, status=201,
    ),
    Entry(
        "get", "/admin/v1/tenants/{tenant}", "get_tenant", "administration",
        "One tenant, by name or id, and what it has", TenantAndHoldings, OWNED,
    ),
    Entry(
        "patch", "/admin/v1/tenants/{tenant}", "change_tenant", "administration",
        "Isolate a tenant otherwise, choose for its keys, or disable it: its requests are cut",
        Tenant,
        WITH_BODY | OWNED | {Code.CONFLICT}, TenantChange,
    ),
    Entry(
        "delete", "/admin/v1/tenants/{tenant}", "remove_tenant", "administration",
        "Remove a tenant and what it has; what it used stays in the ledger",
        TenantAndHoldings, WITH_QUERY | OWNED | {Code.CONFLICT}, query=RemovalQuery,
    ),
]  # fmt: skip
