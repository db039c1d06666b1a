from freehold.core.errors import Code
from freehold.serve.admin.signing_keys import Revocation
from freehold.serve.openapi.codes import WITH_BODY
from freehold.serve.openapi.entry import Entry
from freehold.serve.replies.signing_keys import RevokedSigningKey, SigningKey, SigningKeyList

ENTRIES = [
    Entry(
        "get", "/admin/v1/signing-keys", "list_signing_keys", "administration",
        "The keys whose signatures on adapters count", SigningKeyList,
    ),
    Entry(
        "post", "/admin/v1/signing-keys", "rotate_signing_key", "administration",
        "Have another key sign from now on; what the ones before signed stays valid",
        SigningKey, status=201,
    ),
    Entry(
        "post", "/admin/v1/signing-keys/{key}/revoke", "revoke_signing_key", "administration",
        "Believe nothing more that a key of this installation signed, or only what was recorded "
        "before a time; adapters that nothing else vouches for serve no more",
        RevokedSigningKey, WITH_BODY | {Code.NOT_FOUND, Code.CONFLICT}, Revocation,
    ),
]  # fmt: skip
