from freehold.core.errors import Code
from freehold.serve.admin.keys import KeyChange, KeyRotation, NewKey
from freehold.serve.openapi.codes import OWNED, WITH_BODY, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.owner import OwnQuery
from freehold.serve.replies.keys import CreatedKey, Key, KeyList

ENTRIES = [
    Entry(
        "get", "/admin/v1/keys", "list_keys", "administration",
        "The keys of a tenant's environment, never their secrets", KeyList,
        WITH_QUERY | OWNED, query=OwnQuery,
    ),
    Entry(
        "post", "/admin/v1/keys", "create_key", "administration",
        "Make a key that may no more than the maker's", CreatedKey,
        WITH_BODY | OWNED | {Code.CONFLICT}, NewKey, status=201,
    ),
    Entry(
        "patch", "/admin/v1/keys/{key_id}", "change_key", "administration",
        "Choose what follows when a key is used otherwise than before; no key does so for itself",
        Key, WITH_BODY | OWNED, KeyChange,
    ),
    Entry(
        "delete", "/admin/v1/keys/{key_id}", "revoke_key", "administration",
        "Revoke a key; doing it again changes nothing", Key, WITH_QUERY | OWNED,
        query=OwnQuery,
    ),
    Entry(
        "post", "/admin/v1/keys/{key_id}/rotate", "rotate_key", "administration",
        "Replace a key, which goes on for a while; the same call gets the same new key",
        CreatedKey, WITH_BODY | OWNED | {Code.CONFLICT}, KeyRotation,
    ),
    Entry(
        "post", "/admin/v1/keys/{key_id}/confirm", "confirm_key", "administration",
        "Say that the use of a key is in order, whatever is unusual in it; one that was "
        "suspended or stepped down for it may again what it might", Key,
        WITH_QUERY | OWNED, query=OwnQuery,
    ),
]  # fmt: skip
