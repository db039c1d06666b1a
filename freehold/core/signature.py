"""What says whose an adapter is: a signature over its files, and keys that sign."""

from dataclasses import dataclass

SIGNATURE = "model.sig"  # beside the files of an adapter


@dataclass(frozen=True, slots=True)
class Signature:
    """Over the files of a tenant's adapter, in every environment. `key` is the SHA-256 of the
    public key, `bundle` the file as it was made or came, `manifest` the text of the adapter's
    `freehold.json`, if that is signed too."""

    tenant_id: str
    digest: str
    key: str
    bundle: str
    manifest: str | None
    made_at_us: int
    made_by: str


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed: `key` is the SHA-256 of the public key, `by` what whoever has it was called here
    when its signature was accepted."""

    key: str
    by: str


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One that this installation signs with, or did: what it signed stays valid until it is
    revoked. Of a revoked one nothing counts that was recorded here from `revoked_since_us` on.
    `public` is PEM."""

    id: str
    public: str
    made_at_us: int
    revoked_since_us: int | None = None
