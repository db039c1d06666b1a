"""The shape of `freehold.yaml`: frozen, closed, every value checked at the door."""

import ipaddress
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from freehold.config.trust import LOOPBACK
from freehold.core.binding import OF_ALL, ROLES, Environment, Role, Scope
from freehold.core.departure import OnDeparture
from freehold.core.event import Severity
from freehold.core.names import label

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}$")]
CertificateName = Annotated[str, Field(min_length=1, max_length=512)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _parts(value: str) -> SplitResult | None:
    """Of a plain http or https URL; None for what is none."""
    try:
        parts = urlsplit(value)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text quotes the URL, credentials included
        return None
    if is_url and (parts.username or parts.password or parts.query or parts.fragment):
        raise ValueError("must not carry credentials, a query or a fragment")
    return parts if is_url else None


class ServerSettings(_Section):
    host: str = Field("127.0.0.1", min_length=1, max_length=253)
    port: int = Field(8080, ge=0, le=65535)
    allowed_hosts: tuple[str, ...] = ()
    tls_certificate: str | None = None
    tls_key: str | None = None
    # A non-loopback bind without TLS is refused unless something in front ends TLS.
    tls_ends_in_front: bool = False
    # Authorities whose clients are let in, and whether others are too, without a name.
    client_ca: str | None = None
    client_certificates: Literal["required", "optional"] = "required"
    max_body_bytes: int = Field(8 * 1024 * 1024, ge=1024)
    max_bodies_bytes: int = Field(256 * 1024 * 1024, ge=1024)
    max_connections: int = Field(4096, ge=1)
    drain_s: float = Field(30, ge=0)
    # Keys of the others are refused, and their routes and adapters left alone.
    environments: tuple[Environment, ...] = Field(tuple(Environment), min_length=1)
    # Whose X-Forwarded-For is believed: addresses or networks of proxies in front.
    trusted_proxies: tuple[str, ...] = ()
    # And the names of the certificates that a proxy must have one of.
    proxy_certificates: tuple[CertificateName, ...] = ()
    # Where people's browsers find this gateway, as they see it: who logs in comes back there.
    public_url: str | None = None

    @field_validator("public_url")
    @classmethod
    def _origin(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = _parts(value)
        if parts is None or parts.path not in ("", "/"):
            raise ValueError("must be an https:// URL without a path: https://llm.example.com")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ValueError("must use https, or sessions could be read on the way")
        usual = f":{443 if parts.scheme == 'https' else 80}"  # which browsers leave out
        return f"{parts.scheme}://{parts.netloc.lower().removesuffix(usual)}"

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            try:
                ipaddress.ip_network(each)
            except ValueError:
                raise ValueError(
                    f"{each[:60]!r} is no address or network such as 10.0.0.0/8"
                ) from None
        return value


class NetworkSettings(_Section):
    # Authorities of one's own, beside the system's, for what Freehold calls.
    ca_file: str | None = None


class LimitSettings(_Section):
    """Seconds an engine or a client may stay silent before a request is ended."""

    first_token_s: float = Field(120, gt=0)
    next_token_s: float = Field(30, gt=0)
    slow_client_s: float = Field(30, gt=0)
    queue_length: int = Field(512, ge=0)
    queue_s: float = Field(60, gt=0)
    # From one address, and for one key's public id, before such guesses get 429.
    wrong_keys_a_minute: int = Field(60, ge=1)


class LlamaCppSettings(_Section):
    threads: int | None = Field(None, ge=1)
    streams: int = Field(8, ge=1, le=256)
    context_length: int = Field(4096, ge=128)  # per stream
    adapter_bytes: int = Field(1024 * 1024 * 1024, ge=1024 * 1024)  # in memory, all together


class OpenVinoSettings(_Section):
    """`weights` and `kv_cache` trade quality for speed and memory; `model show` has
    the measured loss of each."""

    threads: int | None = Field(None, ge=1)
    streams: int = Field(32, ge=1, le=256)
    context_length: int = Field(4096, ge=128)  # of one request
    weights: Literal["int8", "int4", "float32"] = "int8"
    kv_cache: Literal["u8", "bf16"] = "u8"
    kv_cache_bytes: int = Field(512 * 1024 * 1024, ge=1024 * 1024)
    adapter_bytes: int = Field(1024 * 1024 * 1024, ge=1024 * 1024)  # resident, all together
    max_rank: int = Field(64, ge=1, le=512)


class VllmSettings(_Section):
    """`python` is the interpreter that has vLLM, by default the gateway's own. Each of the
    `adapters_at_once` places of a batch takes memory for `max_rank`, used or not."""

    python: str | None = None
    threads: int | None = Field(None, ge=1)  # where vLLM computes on the CPU
    gpus: int = Field(1, ge=1, le=64)
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    kv_cache_bytes: int | None = Field(None, ge=1024 * 1024)
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    streams: int = Field(64, ge=1, le=1024)
    context_length: int = Field(4096, ge=128)  # of one request
    adapters_at_once: int = Field(8, ge=1, le=256)
    max_adapters: int = Field(64, ge=1, le=65536)
    max_rank: int = Field(64, ge=1, le=512)
    eager: bool = False  # starts sooner and computes slower: nothing is compiled

    @model_validator(mode="after")
    def _holds_a_batch(self) -> "VllmSettings":
        if self.max_adapters < self.adapters_at_once:
            raise ValueError("max_adapters must be at least adapters_at_once")
        return self


class EngineSettings(_Section):
    default: Literal["auto", "llama_cpp", "openvino", "vllm", "fake"] = "auto"
    llama_cpp: LlamaCppSettings = LlamaCppSettings()
    openvino: OpenVinoSettings = OpenVinoSettings()
    vllm: VllmSettings = VllmSettings()
    fake_flags: tuple[str, ...] = ()


class UpstreamModel(_Section):
    alias: Name
    upstream_name: str
    task: Literal["chat", "embeddings"] = "chat"
    context_length: int | None = Field(None, ge=1)


class UpstreamSettings(_Section):
    """One OpenAI-compatible service elsewhere. Its credential is read from a file
    and is sent to this origin only."""

    name: Name
    base_url: str
    api_key_file: str | None = None
    concurrency: int = Field(1024, ge=1)
    refused_fields: tuple[str, ...] = ()
    models: tuple[UpstreamModel, ...] = Field(min_length=1)

    @field_validator("base_url")
    @classmethod
    def _plain_origin(cls, value: str) -> str:
        parts = _parts(value)
        if parts is None:
            raise ValueError("must be an http:// or https:// URL such as https://api.openai.com/v1")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ValueError("must use https, or its traffic and key could be read on the way")
        return value.rstrip("/")


Money = Annotated[Decimal, Field(ge=0, max_digits=18, decimal_places=9)]


class ModelPrice(_Section):
    """What a model costs, for a million tokens, in the settings' currency. `cached` is for
    the tokens of a prompt that a cache knew; without it they cost as all others."""

    model: Name  # an alias of an upstream's, or a model that is served here
    input: Money
    output: Money = Decimal(0)
    cached: Money | None = None


class MachineSettings(_Section):
    """What the machine costs that models run on: by the hour, where it is rented, else what
    it was bought for and what keeps it running. `busy` is the share of its time in which it
    answers: the rest has to be earned too."""

    per_hour: Money | None = None
    purchase: Money | None = None
    lifetime_years: float = Field(4, gt=0, le=50)
    watts: float = Field(0, ge=0)
    per_kwh: Money = Decimal(0)
    per_month: Money = Decimal(0)  # housing, support
    busy: float = Field(0.25, gt=0, le=1)

    @model_validator(mode="after")
    def _one_way(self) -> "MachineSettings":
        if self.per_hour is not None and self.purchase is not None:
            raise ValueError("give per_hour for a rented machine or purchase for an own one")
        return self


class PriceSettings(_Section):
    models: tuple[ModelPrice, ...] = ()
    machine: MachineSettings = MachineSettings()
    # Of the settings' currency for a dollar, in which published prices are.
    for_a_dollar: Money | None = None

    @field_validator("models")
    @classmethod
    def _models_once(cls, value: tuple[ModelPrice, ...]) -> tuple[ModelPrice, ...]:
        names = [each.model for each in value]
        twice = sorted({each for each in names if names.count(each) > 1})
        if twice:
            raise ValueError(f"the price of {twice[0]!r} is given twice")
        return value


class DatabaseSettings(_Section):
    """The store: by default a SQLite file in the home."""

    url: str | None = None
    password_file: str | None = None

    @field_validator("url")
    @classmethod
    def _postgresql(cls, value: str | None) -> str | None:
        """What it says never quotes the URL: somebody may have put a password into it."""
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
            is_url = parts.scheme in ("postgresql", "postgres") and len(parts.path) > 1
            is_url = is_url and parts.port != 0 and not parts.fragment
        except ValueError:
            is_url, query = False, {}
        if not is_url:
            raise ValueError("must be a URL such as postgresql://freehold@db.example.com/freehold")
        if parts.password is not None or "password" in query:
            raise ValueError("must not carry the password: put that into database.password_file")
        unknown = sorted(query.keys() - _POSTGRESQL_OPTIONS)
        if unknown:
            raise ValueError(f"may set {', '.join(sorted(_POSTGRESQL_OPTIONS))} only")
        if "host" in query and (parts.hostname or not query["host"].startswith("/")):
            raise ValueError("may name by host= the folder of a socket only")
        if parts.hostname in (None, "127.0.0.1", "localhost", "::1"):
            return value
        mode = query.get("sslmode")
        if mode in ("disable", "allow", "prefer"):
            raise ValueError(f"must not set sslmode={mode}: rows could be read on the way")
        if mode is not None:
            return value
        query = {"sslmode": "verify-full", "sslrootcert": "system"} | query
        return parts._replace(query=urlencode(query)).geturl()


# What libpq is told besides; where a server asks for TLS it is checked unless this says less.
_POSTGRESQL_OPTIONS = frozenset(
    {"host", "sslmode", "sslrootcert", "sslcert", "sslkey", "application_name"}
)


class AuditSettings(_Section):
    # The folder of the signed checkpoints: best on another disk or machine.
    checkpoints: str | None = None
    # Folders that get whole records too.
    copies: tuple[str, ...] = ()
    # What may fail without that new work is refused.
    may_fail: tuple[Literal["copies"], ...] = ()


class BackupSettings(_Section):
    """`recipient` is a file of public keys that lock a backup; each opens it alone."""

    recipient: str | None = None
    folder: str | None = None  # backups/ in the home
    every_h: int | None = Field(None, ge=1, le=24 * 31)  # None: only when asked for
    keep: int = Field(7, ge=1)
    include_models: bool = False


class DecisionSettings(_Section):
    check_every_h: int | None = Field(24, ge=1, le=24 * 31)  # None: only when asked for


class TuneSettings(_Section):
    at_once: int = Field(1, ge=1, le=16)
    threads: int | None = Field(None, ge=1, le=1024)  # None: half of the cores
    priority: Literal["idle", "low"] = "idle"
    keep_free_mb: int = Field(1000, ge=0)


class DataSettings(_Section):
    """What a file of examples may hold."""

    max_gb: float = Field(2, gt=0, le=1000)
    max_examples: int = Field(500_000, ge=2, le=100_000_000)


class SupplySettings(_Section):
    """Which adapters may serve: `trusted_keys` are files of public keys in PEM whose signatures
    count beside our own; where one is required, others stay out. `trusted_installations` are those
    of installations, which are believed about gates, too. A gate that another one decided counts
    for `gate_days`: a later one that failed there is not known here."""

    trusted_keys: tuple[str, ...] = ()
    trusted_installations: tuple[str, ...] = ()
    require_signature: tuple[Environment, ...] = ()
    gate_days: Annotated[int, Field(ge=1, le=36_500)] = 90


class WebhookSettings(_Section):
    """Where events are sent to. `secret_file` signs them; `ca_file` is for a certificate
    that this machine would not trust."""

    url: str
    secret_file: str
    severity: Severity = Severity.WARNING
    ca_file: str | None = None

    @field_validator("url")
    @classmethod
    def _only_https(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            is_url = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url or parts.username or parts.password or parts.fragment:
            raise ValueError("must be an https:// URL without credentials or a fragment")
        return value


class EventSettings(_Section):
    webhooks: tuple[WebhookSettings, ...] = ()
    keep_days: int = Field(90, ge=1, le=3660)


class PatternSettings(_Section):
    learn: bool = True
    on_departure: OnDeparture = OnDeparture.NOTIFY

    @field_validator("on_departure")
    @classmethod
    def _decided(cls, value: OnDeparture) -> OnDeparture:
        if value is OnDeparture.DEFAULT:
            raise ValueError("this is the default: choose notify, step-down or suspend")
        return value


class AccessRule(_Section):
    """What the members of a provider's group may do, and where. Roles are scopes by the names
    that policies have for them. With `tenant`, only in that one of those that it serves."""

    group: str = Field(min_length=1, max_length=256)
    roles: tuple[Role, ...] | None = Field(None, min_length=1)
    scopes: tuple[Scope, ...] | None = Field(None, min_length=1)
    environments: tuple[Environment, ...] = Field((Environment.DEV,), min_length=1)
    tenant: str | None = None

    @property
    def granted(self) -> frozenset[Scope]:
        if self.roles is None and self.scopes is None:
            return frozenset({Scope.INFER})
        return frozenset(self.scopes or ()) | {role.scope for role in self.roles or ()}

    @field_validator("group")
    @classmethod
    def _plain(cls, value: str) -> str:
        return label(value)


class ProviderSettings(_Section):
    """An OpenID provider whose people and workloads are let in: those of one tenant, or of
    that which `tenants` names for what the token says in `tenant_claim`.

    `audiences` are those of tokens that are taken like keys. `client_id` is what the
    provider knows this gateway by when people log in, `cli_client_id` what it knows
    `freehold login` by, which keeps no secret."""

    name: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")
    issuer: str = Field(min_length=1, max_length=1000)
    audiences: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = Field(("RS256", "ES256"), min_length=1)
    groups_claim: str = Field("groups", min_length=1, max_length=100)
    tenant: str | None = None
    tenant_claim: str | None = Field(None, min_length=1, max_length=100)
    tenants: Mapping[str, str] = {}
    client_id: str | None = Field(None, min_length=1, max_length=256)
    client_secret_file: str | None = None
    cli_client_id: str | None = Field(None, min_length=1, max_length=256)
    scopes: tuple[Annotated[str, Field(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]{1,200}$")], ...] = (
        "openid",
        "profile",
        "email",
    )
    access: tuple[AccessRule, ...] = ()

    @property
    def called(self) -> str:
        """How people choose it."""
        return self.name or urlsplit(self.issuer).hostname or self.issuer

    @property
    def command_client(self) -> str | None:
        """The client without a secret, for commands."""
        return self.cli_client_id or (None if self.client_secret_file else self.client_id)

    @property
    def clients(self) -> tuple[str, ...]:
        return tuple(each for each in (self.client_id, self.cli_client_id) if each is not None)

    @model_validator(mode="after")
    def _is_of_use(self) -> "ProviderSettings":
        if not self.audiences and not self.clients:
            raise ValueError("needs audiences, for tokens, or a client_id, for logging in")
        if self.client_secret_file and self.client_id is None:
            raise ValueError("client_secret_file needs the client_id that it belongs to")
        if self.clients and "openid" not in self.scopes:
            raise ValueError("scopes must have openid, or nobody can log in")
        return self

    @model_validator(mode="after")
    def _tenants_are_chosen_one_way(self) -> "ProviderSettings":
        if (self.tenant_claim is None) != (not self.tenants):
            raise ValueError("tenant_claim and tenants need each other")
        if self.tenant_claim is not None and self.tenant is not None:
            raise ValueError("has tenant or tenant_claim, not both")
        for rule in self.access:
            beyond = rule.granted & OF_ALL
            if beyond and self.tenant_claim is not None and rule.tenant is None:
                # Each of these tenants names its own groups.
                role = ROLES[min(beyond)]
                raise ValueError(f"access: the role {role} reaches all tenants: name a tenant")
        return self


class SessionSettings(_Section):
    """How long somebody stays logged in: at all, and without doing anything."""

    lifetime_h: float = Field(12, gt=0, le=24 * 90)
    idle_min: float = Field(120, ge=5)


class Settings(_Section):
    models: tuple[str, ...] = ()  # empty: the default model
    server: ServerSettings = ServerSettings()
    network: NetworkSettings = NetworkSettings()
    limits: LimitSettings = LimitSettings()
    engines: EngineSettings = EngineSettings()
    database: DatabaseSettings = DatabaseSettings()
    audit: AuditSettings = AuditSettings()
    sessions: SessionSettings = SessionSettings()
    backup: BackupSettings = BackupSettings()
    decisions: DecisionSettings = DecisionSettings()
    tune: TuneSettings = TuneSettings()
    data: DataSettings = DataSettings()
    supply: SupplySettings = SupplySettings()
    events: EventSettings = EventSettings()
    patterns: PatternSettings = PatternSettings()
    upstreams: tuple[UpstreamSettings, ...] = ()
    identity_providers: tuple[ProviderSettings, ...] = ()
    prices: PriceSettings = PriceSettings()
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("identity_providers")
    @classmethod
    def _issuers_once(cls, value: tuple[ProviderSettings, ...]) -> tuple[ProviderSettings, ...]:
        issuers = [each.issuer for each in value]
        twice = sorted({each for each in issuers if issuers.count(each) > 1})
        if twice:
            raise ValueError(f"the issuer {twice[0][:100]!r} is given twice")
        names = [each.called for each in value]
        twice = sorted({each for each in names if names.count(each) > 1})
        if twice:
            raise ValueError(f"two providers are called {twice[0]!r}: give one a name")
        return value

    @model_validator(mode="after")
    def _aliases_once(self) -> "Settings":
        aliases = [model.alias for upstream in self.upstreams for model in upstream.models]
        twice = sorted({alias for alias in aliases if aliases.count(alias) > 1})
        if twice:
            raise ValueError(f"upstreams: alias {twice[0]!r} is given twice")
        return self
