"""The tables, once; Alembic migrates towards them and a test holds them equal."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

metadata = MetaData()

facts = Table(
    "facts",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)

tenants = Table(
    "tenants",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("created_at_us", BigInteger, nullable=False),
    Column("isolation", String, nullable=False, server_default="shared"),
    Column("disabled_at_us", BigInteger),
    Column("audit_content", Boolean),
    Column("on_departure", String),
    Column("feedback", Boolean),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False, index=True),
    Column("environment", String, nullable=False),
    Column("name", String, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("scopes", String, nullable=False),
    Column("models", String),
    Column("created_at_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger),
    Column("revoked_at_us", BigInteger),
    Column("networks", String),
    Column("replaced_by", String),
    Column("rotation_token", String),  # under which it was replaced
    Column("lineage", String),  # the first of the keys that replaced one another
    Column("certificates", String),  # names, a line each
    Column("on_departure", String),
    Column("restraint", String),
    Column("restrained_at_us", BigInteger),
)

# Counted up by each change that others must hear of, in its transaction. `routes/…` has the
# count at the last change that a gateway made to a tenant's environment.
changes = Table(
    "changes",
    metadata,
    Column("name", String, primary_key=True),
    Column("number", BigInteger, nullable=False),
)


def _leading() -> tuple[Column[Any], ...]:
    """Where an alias leads: what routes and their candidates have in common."""
    return (
        Column("id", String, primary_key=True),
        Column("tenant_id", String, nullable=False),
        Column("environment", String, nullable=False),
        Column("alias", String, nullable=False),
        Column("engine", String, nullable=False),
        Column("pool", String, nullable=False),
        Column("base_digest", String),
        Column("adapter_digest", String),
        Column("engine_model", String, nullable=False),
        Column("created_at_us", BigInteger, nullable=False),
    )


routes = Table(
    "routes",
    metadata,
    *_leading(),
    Column("managed", Boolean, nullable=False),
    Column("alias_since_us", BigInteger),
    Column("passed_by", String),
    Column("promotion", String),
    UniqueConstraint("tenant_id", "environment", "alias", "managed"),
    Index("routes_by_weights", "base_digest", "adapter_digest"),
)

# Routes that have a share of the requests for their alias.
candidates = Table(
    "candidates",
    metadata,
    *_leading(),
    Column("passed_by", String),
    Column("promotion", String, nullable=False),
    Column("share", Float, nullable=False),
    UniqueConstraint("tenant_id", "environment", "alias"),
    Index("candidates_by_weights", "base_digest", "adapter_digest"),
)

promotions = Table(
    "promotions",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("source", String),
    Column("alias", String, nullable=False),
    Column("adapter", String),
    Column("bundle", String, nullable=False),
    Column("gate", String),
    Column("forced", String),
    Column("overridden", String, nullable=False),
    Column("accepted", String),
    Column("share", Float, nullable=False),
    Column("watch", String, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("before", String),
    Column("before_adapter", String, index=True),
    Column("made_at_us", BigInteger, nullable=False),
    Column("made_by", String, nullable=False),
    Column("whole_at_us", BigInteger),
    Column("watched_until_us", BigInteger, index=True),
    Column("ended_at_us", BigInteger),
    Column("ended_because", String),
    Column("ended_by", String),
    Column("figures", String),
    Column("elsewhere", String),  # JSON, of what came from another installation
    Index("promotions_by_alias", "tenant_id", "environment", "alias"),
)

adapters = Table(
    "adapters",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("name", String, nullable=False),
    Column("digest", String, nullable=False, index=True),
    Column("config_digest", String, nullable=False, index=True),
    Column("weights_digest", String, nullable=False, index=True),
    Column("base_digest", String, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("scaling", String, nullable=False),
    Column("target_modules", String, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("source", String, nullable=False),
    Column("added_at_us", BigInteger, nullable=False),
    Column("manifest", String),
    UniqueConstraint("tenant_id", "environment", "name"),
    UniqueConstraint("tenant_id", "environment", "base_digest", "digest"),
)

# On a tenant's adapters of a digest, in every environment. `bundle` is as it was made or came,
# `manifest` the text that it is over.
signatures = Table(
    "signatures",
    metadata,
    Column("tenant_id", String, primary_key=True),
    Column("digest", String, primary_key=True, index=True),
    Column("key", String, primary_key=True),
    Column("bundle", String, nullable=False),
    Column("manifest", String),
    Column("made_at_us", BigInteger, nullable=False),
    Column("made_by", String, nullable=False),
)

# The public halves of what gateways sign with, or did.
signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("public", String, nullable=False),
    Column("made_at_us", BigInteger, nullable=False),
    Column("revoked_since_us", BigInteger),
)

# Where aliases led, and since when; rows are only ever added.
route_history = Table(
    "route_history",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("alias", String, nullable=False),
    Column("managed", Boolean, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("base_digest", String),
    Column("adapter_digest", String),
    Column("is_removed", Boolean, nullable=False),
    Column("set_by", String),
    Index("route_history_of", "tenant_id", "environment", "alias", "at_us"),
)

# What was known of adapters and datasets when they were removed, as JSON.
remains = Table(
    "remains",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("content", String, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Index("remains_of", "tenant_id", "kind", "digest"),
)

# The cards of models that served, also when they are removed; no tenant's.
bases = Table(
    "bases",
    metadata,
    Column("digest", String, primary_key=True),
    Column("content", String, nullable=False),
)

# Their files are under data/ in the home.
datasets = Table(
    "datasets",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("name", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("train", Integer, nullable=False),
    Column("held_out", Integer, nullable=False),
    Column("licence", String, nullable=False),
    Column("origin", String, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("created_by", String, nullable=False),
    Column("accepted", String),
    UniqueConstraint("tenant_id", "environment", "name", "version"),
)

# Whose words examples of a digest hold, where that is known: until when they were known.
dataset_subjects = Table(
    "dataset_subjects",
    metadata,
    Column("tenant_id", String, primary_key=True),
    Column("digest", String, primary_key=True),
    Column("subject", String, primary_key=True),
    Column("forgotten_at_us", BigInteger),
    Index("dataset_subjects_of", "tenant_id", "subject"),
)

# One row a request that was accepted: the reservation, then the settlement.
requests = Table(
    "requests",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("alias", String, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("engine", String, nullable=False),
    Column("base_digest", String),
    Column("adapter_digest", String),
    Column("conversation_id", String),
    Column("priority", String, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("tokens_in", Integer, nullable=False, default=0),
    Column("tokens_out", Integer, nullable=False, default=0),
    Column("tokens_cached", Integer, nullable=False, default=0),
    Column("estimated", Boolean, nullable=False, default=False),
    Column("ttft_us", BigInteger),
    Column("duration_us", BigInteger),
    Column("settled_at_us", BigInteger),
    Column("outcome", String),
    Column("error_code", String),
    Column("policies", String),  # that admitted it
    Column("account", String),  # whose use it is, where that is not the key itself
    Column("price", String),  # as core/price.py writes it
    Column("cost", BigInteger),  # micro-units; NULL where the price was not known
    Column("personal", String),  # of its audit record, sealed
    Column("gateway", String),  # that reserved it, where there can be several
    Column("content", String),  # the digest of what is kept of it, sealed
    Index("requests_by_tenant_and_time", "tenant_id", "created_at_us"),
)
# Small however many rows there are: what a start has to sweep.
Index(
    "requests_open",
    requests.c.id,
    sqlite_where=requests.c.settled_at_us.is_(None),
    postgresql_where=requests.c.settled_at_us.is_(None),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("slot", String, primary_key=True),
    Column("request_id", String, nullable=False),
    Column("body_hash", String, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False, index=True),
    Column("status", Integer),
    Column("content_type", String),
    Column("sealed_body", LargeBinary),
    Column("gateway", String),  # whose request claimed it, where there can be several
)

# Those on this database, where there can be several.
gateways = Table(
    "gateways",
    metadata,
    Column("id", String, primary_key=True),
    Column("seen_at_us", BigInteger, nullable=False),  # by the database's clock
)

# `tenant_id` is empty for those of the whole installation.
policies = Table(
    "policies",
    metadata,
    Column("tenant_id", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("text", String, nullable=False),
    Column("set_at_us", BigInteger, nullable=False),
    Column("set_by", String, nullable=False),
)

# By tenant and subject (a key, a person, an end user): what unlocks personal fields of audit
# records, wrapped; null once the subject is forgotten.
subject_keys = Table(
    "subject_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("wrapped", LargeBinary),
    Column("created_at_us", BigInteger, nullable=False),
    Column("forgotten_at_us", BigInteger),
    Index("subject_keys_of", "tenant_id", "subject"),
)

# Of people who logged in. `hash` is the keyed one of what they show, `token_hash` that of the
# provider's token which was exchanged for it, once.
sessions = Table(
    "sessions",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("person_id", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("issuer", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("groups", String, nullable=False),  # a JSON list
    Column("tenant_value", String),
    Column("name", String),
    Column("issued_at_us", BigInteger, nullable=False),
    Column("token_expires_at_us", BigInteger, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("last_used_at_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
    Column("ended_at_us", BigInteger),
    Column("ended_by", String),
    Index("sessions_by_person", "tenant_id", "person_id"),
)

# Whose tokens of before no longer count; an empty person is everybody of the tenant.
cut_offs = Table(
    "cut_offs",
    metadata,
    Column("tenant_id", String, primary_key=True),
    Column("person_id", String, primary_key=True),
    Column("before_us", BigInteger, nullable=False),
    Column("set_by", String, nullable=False),
)

# What groups of identity providers may, beside what the settings give them.
role_grants = Table(
    "role_grants",
    metadata,
    Column("tenant_id", String, primary_key=True),
    Column("environment", String, primary_key=True),
    Column("issuer", String, primary_key=True),
    Column("group_name", String, primary_key=True),
    Column("role", String, primary_key=True),
    Column("granted_at_us", BigInteger, nullable=False),
    Column("granted_by", String, nullable=False),
)

# What was asked and answered, where a tenant has it kept; sealed as personal fields are.
audit_content = Table(
    "audit_content",
    metadata,
    Column("request_id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("data_keys", String, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)

# What people said of answers; what they wrote is sealed as contents are.
feedback = Table(
    "feedback",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("request_id", String, nullable=False),
    Column("alias", String, nullable=False),
    Column("adapter_digest", String),
    Column("rating", String, nullable=False),
    Column("given_at_us", BigInteger, nullable=False),
    Column("given_by", String, nullable=False),
    Column("data_keys", String, nullable=False),
    Column("sealed", LargeBinary),
    UniqueConstraint("tenant_id", "request_id", "given_by"),
    Index("feedback_by_alias", "tenant_id", "environment", "alias", "given_at_us"),
)

# By stream (a tenant's environment), a chain of hashes; rows are only ever added.
audit = Table(
    "audit",
    metadata,
    Column("stream", String, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("body", String, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    # What records are found by; it is in the body too, and verified with it.
    Column("at_us", BigInteger),
    Column("kind", String),
    Column("principal", String),
    Column("model", String),
    Index("audit_by_time", "stream", "at_us", "number"),
    Index("audit_by_principal", "stream", "principal", "at_us", "number"),
    Index("audit_by_model", "stream", "model", "at_us", "number"),
)
# What is no request: few among many.
Index(
    "audit_acts",
    audit.c.stream,
    audit.c.at_us,
    audit.c.number,
    sqlite_where=audit.c.model.is_(None),
    postgresql_where=audit.c.model.is_(None),
)

# `environment` and `subject` are empty where a limit is not narrowed to one.
limits = Table(
    "limits",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("measure", String, nullable=False),
    Column("period", String, nullable=False),
    Column("is_own", Boolean, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("set_at_us", BigInteger, nullable=False),
    Column("set_by", String, nullable=False),
    UniqueConstraint(
        "tenant_id", "environment", "subject", "measure", "period", "is_own", name="one_limit_each"
    ),
)

# What running requests hold of limits, where several gateways share a database.
holds = Table(
    "holds",
    metadata,
    Column("request_id", String, primary_key=True),
    Column("limit_id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("gateway", String),
    Column("measure", String, nullable=False),
    Column("period", String, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("is_open", Boolean, nullable=False),
    Index("holds_by_limit", "limit_id", "at_us"),
)

# What settled requests used, by the day (since the epoch, UTC) on which they began: what
# budgets are held against. Written with each settlement, in its transaction.
spent = Table(
    "spent",
    metadata,
    Column("tenant_id", String, primary_key=True),
    Column("environment", String, primary_key=True),
    Column("account", String, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("requests", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
)

# What somebody should know of; without a tenant it is the installation's.
events = Table(
    "events",
    metadata,
    Column("id", String, primary_key=True),
    Column("at_us", BigInteger, nullable=False, index=True),
    Column("severity", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("tenant_id", String),
    Column("environment", String),
    Column("subject", String),
    Column("text", String, nullable=False),
    Column("details", String, nullable=False),
    Index("events_of_tenant", "tenant_id", "environment", "id"),
)

# What webhooks have not taken yet.
event_deliveries = Table(
    "event_deliveries",
    metadata,
    Column("event_id", String, primary_key=True),
    Column("webhook", String, primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("next_at_us", BigInteger, nullable=False, index=True),
)

# How keys are used, as one gateway learned it: networks are keyed hashes.
key_patterns = Table(
    "key_patterns",
    metadata,
    Column("key_id", String, primary_key=True),
    Column("place", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("content", String, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)

# Decisions as they were made; `content` is what freehold/decide/outcome/record.py says.
decisions = Table(
    "decisions",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False, index=True),
    Column("at_us", BigInteger, nullable=False),
    Column("made_by", String, nullable=False),
    Column("name", String, nullable=False),
    Column("version", String, nullable=False),
    Column("supersedes", String, unique=True),
    Column("content", String, nullable=False),
)

# When each was held against what became of it, and what had departed then, a line each.
decision_checks = Table(
    "decision_checks",
    metadata,
    Column("decision_id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("begun_at_us", BigInteger, nullable=False),
    Column("departed", String, nullable=False),
)

# Work beside the gateway. `held_by` is who does it, until `held_until_us` unless it is told
# again. Specs, progress, results and errors are JSON.
jobs = Table(
    "jobs",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("name", String, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("spec", String, nullable=False),
    Column("progress", String, nullable=False),
    Column("result", String),
    Column("error", String),
    Column("created_at_us", BigInteger, nullable=False),
    Column("created_by", String, nullable=False),
    Column("started_at_us", BigInteger),
    Column("ended_at_us", BigInteger),
    Column("cancelled_at_us", BigInteger),
    Column("held_by", String),
    Column("held_until_us", BigInteger),
    Index("ix_jobs_tenant_id", "tenant_id", "environment"),
)

# What evaluations decided of revisions: a base with an adapter, or by itself.
gates = Table(
    "gates",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("base_digest", String, nullable=False),
    Column("adapter_digest", String),
    Column("suite_name", String, nullable=False),
    Column("suite_digest", String, nullable=False),
    Column("incumbent_digest", String),
    Column("passed", Boolean, nullable=False),
    Column("verdicts", String, nullable=False),  # JSON
    Column("job", String),
    Column("made_at_us", BigInteger, nullable=False),
    Column("made_by", String, nullable=False),
    Column("elsewhere", String),  # JSON, of what was decided by another installation
    Index("gates_of_revision", "tenant_id", "base_digest", "adapter_digest"),
)
