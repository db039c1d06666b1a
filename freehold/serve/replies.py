"""What the gateway answers, as types.

The OpenAPI document is made of them; answers themselves are built as plain objects,
where each is built, and a test holds every operation against this file.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from freehold.core.binding import Environment, Priority, Role, Scope
from freehold.core.departure import OnDeparture
from freehold.core.event import Kind, Severity
from freehold.core.job import JobKind, JobState
from freehold.core.limit import Measure, Period
from freehold.core.model import ModelCard
from freehold.core.session import SessionKind
from freehold.core.tenant import IsolationClass
from freehold.core.usage import Outcome, UsageRow
from freehold.deploy.pool import PoolStatus

Count = Annotated[int, Field(ge=0)]


class ErrorDetail(BaseModel):
    message: Annotated[str, Field(description="One sentence: the cause and the next step.")]
    type: str
    param: Annotated[str | None, Field(description="Where in the request: `messages[0].role`.")]
    code: Annotated[str, Field(description="Stable; each operation lists its own.")]


class Error(BaseModel):
    error: ErrorDetail


# chat completions and completions


class CachedTokens(BaseModel):
    cached_tokens: Count


class TokenUsage(BaseModel):
    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: CachedTokens


class CalledFunction(BaseModel):
    name: str
    arguments: str


class MadeToolCall(BaseModel):
    id: str
    type: Literal["function"]
    function: CalledFunction


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    content: list[TokenLogprob] | None
    refusal: None


class AnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[MadeToolCall] = []
    annotations: list[dict[str, Any]] = []
    audio: dict[str, Any] = {}


class ChatChoice(BaseModel):
    index: Count
    message: AnswerMessage
    logprobs: Logprobs | None
    finish_reason: str


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: TokenUsage


class FunctionDelta(BaseModel):
    name: str = ""
    arguments: str = ""


class ToolCallDelta(BaseModel):
    index: Count
    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionDelta = FunctionDelta()


class Delta(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallDelta] = []


class ChatChunkChoice(BaseModel):
    index: Count
    delta: Delta
    logprobs: Logprobs | None
    finish_reason: str | None


class ChatCompletionChunk(BaseModel):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: TokenUsage | None = None


class TextChoice(BaseModel):
    index: Count
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: str | None


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: TokenUsage | None = None


# embeddings


class Embedding(BaseModel):
    object: Literal["embedding"]
    index: Count
    embedding: Annotated[
        list[float] | str,
        Field(description="Numbers, or the base64 of little-endian 32-bit floats."),
    ]


class EmbeddingUsage(BaseModel):
    prompt_tokens: Count
    total_tokens: Count


class EmbeddingList(BaseModel):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


# responses


class OutputText(BaseModel):
    type: Literal["output_text"]
    text: str
    annotations: list[dict[str, Any]]
    logprobs: list[TokenLogprob]


class OutputRefusal(BaseModel):
    type: Literal["refusal"]
    refusal: str


class OutputMessage(BaseModel):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[Annotated[OutputText | OutputRefusal, Field(discriminator="type")]]


class OutputCall(BaseModel):
    id: str
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    status: Literal["in_progress", "completed", "incomplete"]


class OutputTokensDetails(BaseModel):
    reasoning_tokens: Count


class InputTokensDetails(CachedTokens):
    cache_write_tokens: Count


class ResponseUsage(BaseModel):
    input_tokens: Count
    input_tokens_details: InputTokensDetails
    output_tokens: Count
    output_tokens_details: OutputTokensDetails
    total_tokens: Count


class IncompleteDetails(BaseModel):
    reason: Literal["max_output_tokens", "content_filter"]


class ResponseError(BaseModel):
    code: str
    message: str


class Response(BaseModel):
    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[Annotated[OutputMessage | OutputCall, Field(discriminator="type")]]
    previous_response_id: None
    store: Literal[False]
    usage: ResponseUsage | None
    # As the request had them.
    background: bool
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    prompt_cache_key: str | None
    reasoning: dict[str, Any]
    safety_identifier: str | None
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: Count
    top_p: float | None
    truncation: str
    user: str | None


class ResponseEvent(BaseModel):
    """One event of OpenAI's Responses API; its fields depend on its type."""

    model_config = ConfigDict(extra="allow")

    type: str
    sequence_number: Count


# models


class ModelFacts(BaseModel):
    """What a careful client wants to know besides."""

    engine: str
    model_digest: str | None
    adapter_digest: str | None
    licence: str | None
    quantization: str | None
    context_length: int | None
    endpoints: list[str]


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    freehold: ModelFacts


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[Model]


# administration


class Tenant(BaseModel):
    id: str
    name: str
    isolation: IsolationClass
    state: Literal["active", "disabled"]
    created_at: datetime
    disabled_at: datetime | None
    audit_content: bool
    feedback: bool
    on_departure: OnDeparture  # of its keys that chose nothing


class Held(BaseModel):
    kind: Literal["adapter", "dataset", "key", "policy", "role", "route"]
    id: str
    name: str
    environment: str  # `all` for a policy


class TenantAndHoldings(Tenant):
    holdings: list[Held]


class TenantList(BaseModel):
    data: list[Tenant]


class Policy(BaseModel):
    """`tenant` is null for one of the installation."""

    name: str
    tenant: str | None
    text: str
    set_at: str | None
    set_by: str


class AuditRecord(BaseModel):
    """`body` is JSON, as it was hashed; `personal` what can be read of its personal fields."""

    stream: str
    number: int
    body: str
    hash: str
    personal: dict[str, str] | Literal["forgotten", "unreadable"] | None


class AuditList(BaseModel):
    data: list[AuditRecord]
    has_more: bool
    next: Annotated[str | None, Field(description="The cursor to ask for what follows.")]


class KeptContent(BaseModel):
    """`asked` and `answered` as they were sent, `cut` when one of them was longer."""

    request: str
    asked: str
    answered: str
    cut: bool


class GivenFeedback(BaseModel):
    """`written` says whether a better answer or a comment came with it."""

    id: str
    request_id: str
    rating: Literal["up", "down"]
    written: bool
    given_at: datetime


class RemovedContent(BaseModel):
    request: str
    removed: bool


class ForgottenSubject(BaseModel):
    """`data_keys`: how many it ever had, all of which are destroyed."""

    id: str
    data_keys: Count
    forgotten_at: datetime


class TenantName(BaseModel):
    id: str
    name: str


class WhoAmI(BaseModel):
    id: str
    kind: Literal["key", "person"]
    tenant: TenantName
    environment: Environment
    roles: list[Role]
    groups: Annotated[list[str] | None, Field(description="null: a key has none.")]
    models: Annotated[list[str], Field(description="The aliases that it may use.")]
    session: str | None


class Session(BaseModel):
    """Somebody who is logged in; `person` is the id that usage and audit have."""

    id: str
    person: str
    name: str | None
    kind: SessionKind
    provider: str
    groups: list[str]
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    ended_at: datetime | None


class NewSession(Session):
    secret: Annotated[str, Field(description="To be sent like a key; shown this once.")]
    idle_s: Annotated[int, Field(description="It ends after so long without a use.")]


class SessionList(BaseModel):
    data: list[Session]


class CutOff(BaseModel):
    person: Annotated[str | None, Field(description="null: everybody of the tenant.")]
    sessions_ended: Count


class GrantedRole(BaseModel):
    provider: str
    group: str
    role: Role
    environment: Environment
    granted_at: datetime | None
    granted_by: str | None


class RoleList(BaseModel):
    data: list[GrantedRole]


class LoginClient(BaseModel):
    name: str
    issuer: str
    client_id: str
    scopes: list[str]


class LoginClients(BaseModel):
    data: list[LoginClient]


class PolicyList(BaseModel):
    data: list[Policy]


class AskedPrincipal(BaseModel):
    id: str
    roles: list[Role]
    groups: list[str] | None
    models: list[str] | None


class ToldPolicy(BaseModel):
    name: str
    effect: Literal["permit", "forbid"]
    says: str | None
    text: str


class MissingRole(BaseModel):
    role: Role
    scope: Scope
    policies: Annotated[list[str], Field(description="That permit it then.")]


class Explanation(BaseModel):
    allowed: bool
    answer: Annotated[str, Field(description="One sentence.")]
    principal: AskedPrincipal
    policies: Annotated[list[ToldPolicy], Field(description="Those that decided.")]
    missing: Annotated[list[MissingRole], Field(description="Each alone would do.")]


class RemovedPolicy(BaseModel):
    name: str
    removed: bool


class Limit(BaseModel):
    """`environment` is null for all together, `subject` (a key's first id, or a person's) for
    everybody. `held` is what running requests may still use. `own`: the tenant's admins may
    change it."""

    id: str
    environment: Environment | None
    subject: str | None
    measure: Measure
    period: Period
    unit: Annotated[str, Field(description="Of the amounts: `micro-USD`, `tokens`, ...")]
    amount: Count
    used: Count
    held: Count
    frees_at: datetime | None
    own: bool
    set_at: datetime
    set_by: str


class LimitList(BaseModel):
    data: list[Limit]


class RemovedLimit(BaseModel):
    id: str
    removed: bool


class PriceRates(BaseModel):
    """Micro-units for a million tokens, for requests with so many tokens in or more."""

    from_tokens_in: Count
    input: Count
    output: Count
    cached: Count


class ModelPrice(BaseModel):
    model: str
    upstream: str | None
    source: str
    rates: list[PriceRates]


class MachineCost(BaseModel):
    """Micro-units. `billed` in these hours, beside what the machine `cost`; `busy_enough` is
    the share of busy time at which these prices would have paid for it."""

    per_hour: Count
    source: str
    assumed: bool
    busy: float
    hours: float
    cost: Count
    billed: Count
    busy_enough: float | None


class PriceList(BaseModel):
    currency: str
    data: list[ModelPrice]
    machine: MachineCost | None


class Key(BaseModel):
    """A key as it is shown: never its secret."""

    id: str
    name: str
    environment: Environment
    scopes: list[Scope]
    models: Annotated[list[str] | None, Field(description="null: every model of the tenant.")]
    networks: Annotated[list[str] | None, Field(description="null: from everywhere.")]
    certificates: Annotated[
        list[str] | None, Field(description="null: whatever the client's certificate is.")
    ]
    state: Literal["active", "expired", "revoked", "stepped_down", "suspended"]
    on_departure: Annotated[
        OnDeparture, Field(description="What follows when it is used otherwise than before.")
    ]
    restrained_at: Annotated[
        datetime | None, Field(description="Since when it is suspended or stepped down.")
    ]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    replaced_by: Annotated[str | None, Field(description="The key that replaces it.")]


class CreatedKey(Key):
    key: Annotated[
        str,
        Field(
            description="The key, shown this once; absent when it was taken over, or made by an "
            "earlier call."
        ),
    ] = ""


class KeyList(BaseModel):
    data: list[Key]


class AdapterManifest(BaseModel):
    """Where an adapter comes from. What is not known is null."""

    base_digest: str
    tokenizer_digest: str | None
    template_digest: str | None
    dataset_digest: str | None
    recipe: dict[str, Any]
    licences: dict[str, Any]
    made_with: dict[str, Any]
    job: Annotated[str | None, Field(description="That made it here.")]


class Adapter(BaseModel):
    """A stored adapter; `base` is null for a model that is not served now."""

    id: str
    name: str
    environment: Environment
    digest: str
    base: str | None
    base_digest: str
    rank: Count
    scaling: str
    target_modules: list[str]
    size_bytes: Count
    source: str
    added_at: datetime
    manifest: Annotated[
        AdapterManifest | None, Field(description="Null where nobody said where it comes from.")
    ]


class AdapterList(BaseModel):
    data: list[Adapter]
    has_more: Annotated[bool, Field(description="Ask again `after` the last name.")]


class Signature(BaseModel):
    """`by` is whose key it is, as far as it is trusted; `bundle` the file in the format of OpenSSF
    model-signing."""

    key: Annotated[str, Field(description="The SHA-256 of the public key in PEM.")]
    by: str | None
    holds: bool
    reason: str | None
    made_at: datetime
    made_by: str
    bundle: str


class Verified(BaseModel):
    """Whether an adapter's files are what they were and what was signed."""

    name: str
    environment: Environment
    digest: str
    holds: Annotated[bool, Field(description="Signed, unchanged, and not kept out.")]
    spoilt: Annotated[str | None, Field(description="Which file was changed on the disk.")]
    kept_out: Annotated[str | None, Field(description="Why no engine is told of it.")]
    signatures: list[Signature]


class SigningKey(BaseModel):
    """`made_at` is null for keys that the settings name."""

    id: str
    by: str
    signs: Annotated[bool, Field(description="Whether what is signed here now is by it.")]
    made_at: datetime | None
    public: Annotated[str, Field(description="In PEM.")]


class SigningKeyList(BaseModel):
    data: list[SigningKey]


class Lineage(BaseModel):
    """Where answers come from; what nobody ever said is null, and so is all but the digest of
    what nobody here knows."""

    alias: str
    environment: Environment
    at: datetime
    request: str | None
    since: Annotated[datetime | None, Field(description="Since when the alias led there.")]
    set_by: str | None
    base: Annotated[
        dict[str, Any] | None, Field(description="Its digest, licence, source; null for remotes.")
    ]
    adapter: Annotated[
        dict[str, Any] | None, Field(description="Its digests, recipe, licences and signatures.")
    ]
    dataset: Annotated[
        dict[str, Any] | None, Field(description="Its version, licence, origin and findings.")
    ]
    job: Annotated[dict[str, Any] | None, Field(description="That trained it here.")]
    gates: Annotated[list[dict[str, Any]], Field(description="Evaluations, the oldest first.")]
    promotions: Annotated[list[dict[str, Any]], Field(description="Of it, the oldest first.")]


class Bom(BaseModel):
    """CycloneDX 1.6."""

    model_config = ConfigDict(extra="allow")

    bomFormat: Literal["CycloneDX"]
    specVersion: Literal["1.6"]


class Dataset(BaseModel):
    """One version of a dataset. `accepted_findings` is why what its report warns of may be in
    it, where it warned."""

    id: str
    name: str
    version: Annotated[int, Field(ge=1)]
    environment: Environment
    digest: str
    kind: Literal["chat", "preference"]
    train: Count
    held_out: Count
    licence: str
    origin: str
    accepted_findings: str | None
    created_at: datetime
    created_by: str


class DatasetList(BaseModel):
    data: list[Dataset]
    has_more: Annotated[bool, Field(description="Ask again `after` the last id.")]


class DatasetAndReport(Dataset):
    """What was found in it; see docs/adapt/data.md. Null where its files are gone."""

    report: dict[str, Any] | None


class RouteCandidate(BaseModel):
    """A revision that is tried on a share of the requests for an alias."""

    adapter: str | None
    adapter_digest: str | None
    base_digest: str | None
    share: Annotated[float, Field(description="Of a hundred.")]
    promotion: str


class Route(BaseModel):
    """Where an alias leads. Managed ones are there as long as their model is served."""

    id: str
    alias: str
    environment: Environment
    engine: str
    base: str | None
    base_digest: str | None
    adapter: str | None
    adapter_digest: str | None
    managed: bool
    passed_by: Annotated[
        str | None,
        Field(description="In staging and prod: the gate, or that it was forced; else null."),
    ]
    promotion: Annotated[str | None, Field(description="With which it came.")]
    candidate: RouteCandidate | None
    created_at: datetime


class RouteList(BaseModel):
    data: list[Route]
    has_more: Annotated[bool, Field(description="Ask again `after` the last alias.")]


class Thumbs(BaseModel):
    """What people said of the answers of one alias under one adapter, or the bare base."""

    alias: str
    adapter_digest: str | None
    up: Count
    down: Count


class UsageList(BaseModel):
    data: list[UsageRow]
    thumbs: list[Thumbs]  # of all keys


class RequestRecord(BaseModel):
    """One accepted request; what is still running has no outcome yet."""

    id: str
    tenant_id: str
    environment: Environment
    key_id: str
    alias: str
    endpoint: str
    engine: str
    base_digest: str | None
    adapter_digest: str | None
    conversation_id: str | None
    priority: Priority
    stream: bool
    created_at_us: int
    tokens_in: Count
    tokens_out: Count
    tokens_cached: Count
    estimated: bool
    ttft_us: int | None
    duration_us: int | None
    settled_at_us: int | None
    outcome: Outcome | None
    error_code: str | None
    policies: str | None
    account: str | None
    price: str | None
    cost: Annotated[int | None, Field(description="Micro-units; null: no price is known.")]
    gateway: Annotated[str | None, Field(description="That served it, where there are several.")]


class RequestList(BaseModel):
    data: list[RequestRecord]


class Event(BaseModel):
    """`tenant` is null for one of the installation; `subject` is what it is about."""

    id: str
    at: datetime
    severity: Severity
    kind: Kind
    tenant: str | None
    environment: Environment | None
    subject: str | None
    text: str
    details: dict[str, str | int | float]


class EventList(BaseModel):
    data: list[Event]
    has_more: Annotated[bool, Field(description="Ask again `after` the last id.")]


class Backup(BaseModel):
    """What an encrypted one does not tell before it is opened is null."""

    name: str
    path: str
    size_bytes: Count
    encrypted: bool
    at: datetime
    version: str | None
    schema_: Annotated[str | None, Field(alias="schema")]


class MadeBackup(Backup):
    notes: Annotated[list[str], Field(description="What was amiss, in sentences.")]


class BackupList(BaseModel):
    data: list[Backup]


class JobError(BaseModel):
    code: str
    message: str


class Job(BaseModel):
    """Work beside the gateway. `progress`, `result` and `spec` depend on the kind: see
    docs/adapt/tune.md."""

    id: str
    tenant: str
    environment: Environment
    kind: JobKind
    name: Annotated[str, Field(description="What people call what it makes.")]
    state: JobState
    is_cancelled: Annotated[
        bool, Field(description="Somebody asked for its end, also while it still runs.")
    ]
    spec: dict[str, Any]
    progress: dict[str, Any]
    result: dict[str, Any] | None
    error: JobError | None
    created_at: datetime
    created_by: str
    started_at: datetime | None
    ended_at: datetime | None


class JobList(BaseModel):
    data: list[Job]
    has_more: Annotated[bool, Field(description="Ask again `before` the last id.")]


class Evaluation(BaseModel):
    """`result` is all that was found, with the answers: null before the job's end, or where
    another gateway has it. docs/adapt/eval.md says what its figures mean."""

    job: Job
    result: dict[str, Any] | None


class GateVerdict(BaseModel):
    name: str
    needed: str
    found: str
    passed: bool


class Gate(BaseModel):
    """What an evaluation decided of a revision: a base with an adapter, or by itself."""

    id: str
    tenant: str
    environment: Annotated[Environment, Field(description="Where it was evaluated.")]
    base_digest: str
    adapter_digest: str | None
    suite_name: str
    suite_digest: str
    incumbent_digest: Annotated[
        str | None, Field(description="Of the adapter, or else the base, it was held against.")
    ]
    passed: bool
    verdicts: list[GateVerdict]
    job: str | None
    made_at: datetime
    made_by: str


class GateList(BaseModel):
    data: list[Gate]
    has_more: Annotated[bool, Field(description="Ask again `before` the last id.")]


class JobEstimate(BaseModel):
    """What it will take, about; `cost` in millionths of the currency, null where nobody knows
    what the machine costs. The rest is what was chosen."""

    name: str
    currency: str
    tokens: Annotated[Count, Field(description="To learn from, all epochs.")]
    seconds: float
    memory_bytes: Count
    cost: Count | None
    rests_on: Annotated[str, Field(description="Where the machine's speed is from.")]
    base: str
    dataset: str
    objective: str
    bits: int | None
    trainer: str
    epochs: Count
    max_seconds: float | None
    max_memory_bytes: Count | None
    notes: Annotated[list[str], Field(description="Of the data, as sentences.")]


class JobLine(BaseModel):
    """A line of its log has one of the two."""

    log: str | None = None
    progress: dict[str, Any] | None = None


class JobLog(BaseModel):
    data: list[JobLine]


class CardList(BaseModel):
    data: list[ModelCard]


class Status(BaseModel):
    version: str
    url: str
    pid: int
    rss_bytes: Count
    in_flight: Count
    tokens_out: Count
    ledger_writable: bool
    draining: bool
    pools: list[PoolStatus]


class Alive(BaseModel):
    status: Literal["ok"]


class Ready(BaseModel):
    status: Literal["ready", "unready"]
    reasons: list[str]
