from freehold.serve.admin.roles import RoleOfGroup
from freehold.serve.openapi.codes import OWNED, WITH_BODY, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.owner import OwnQuery
from freehold.serve.replies.roles import GrantedRole, RoleList

ENTRIES = [
    Entry(
        "get", "/admin/v1/roles", "list_roles", "administration",
        "What groups of identity providers were granted here, beside what the settings give",
        RoleList, WITH_QUERY | OWNED, query=OwnQuery,
    ),
    Entry(
        "post", "/admin/v1/roles", "grant_role", "administration",
        "Give a group a role that is no more than the grantor has", GrantedRole,
        WITH_BODY | OWNED, RoleOfGroup, status=201,
    ),
    Entry(
        "delete", "/admin/v1/roles", "revoke_role", "administration",
        "Take a role from a group; requests that it carried are cut", GrantedRole,
        WITH_QUERY | OWNED, query=RoleOfGroup,
    ),
]  # fmt: skip
