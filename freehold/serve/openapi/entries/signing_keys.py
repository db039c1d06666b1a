from freehold.serve.openapi.entry import Entry
from freehold.serve.replies.signing_keys import SigningKey, SigningKeyList

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
]  # fmt: skip
