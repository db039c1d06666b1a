"""OpenAI's chat and completion bodies, closed: what is not here is refused by name."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
)
from pydantic_core import PydanticCustomError

_STOPS, _STOP_CHARACTERS = 4, 1024
_DEPTH, _VALUES = 32, 5000
# OpenAI's own bound of an enum. An engine weighs all alternatives at every token, for
# all its callers in turn: 1,000 were seen to cost seconds, 4,000 more than twenty.
_ALTERNATIVES = 1000


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _kind(value: Any) -> str | None:
    """Which branch of a union a value belongs to, so that an error names one cause."""
    kinds: dict[type, str] = {str: "plain", list: "list", dict: "object"}
    return kinds.get(type(value))


def _first_kind(value: Any) -> str | None:
    """The same for texts and token numbers, which come alone or in lists."""
    if type(value) is not list or not value:
        return "texts" if type(value) is list else _kind(value)
    kinds: dict[type, str] = {str: "texts", int: "tokens", list: "token lists"}
    return kinds.get(type(value[0]))


def one_of(choose: Callable[[Any], str | None], what: str) -> Discriminator:
    """A union's branches by the shape of the value; `what` says which there are."""
    return Discriminator(
        choose, custom_error_type="wrong_shape", custom_error_message=f"must be {what}"
    )


TEXT_OR_LIST = one_of(_kind, "a text or a list")
TEXT_OR_OBJECT = one_of(_kind, "a text or an object")
_TEXTS_OR_TOKENS = one_of(_first_kind, "a text, a list of texts or a list of token numbers")


def _bounded(value: dict[str, Any]) -> dict[str, Any]:
    """Bounds a free object, such as a JSON schema that an engine compiles while
    everybody waits, and keeps references inside it."""
    level: list[Any] = [value]
    values = 0
    for _ in range(_DEPTH):
        if any(isinstance(node, dict) and _points_outside(node) for node in level):
            raise PydanticCustomError("reference", "must not refer to anything outside itself")
        level = [
            inner
            for node in level
            if isinstance(node, dict | list)
            for inner in (node.values() if isinstance(node, dict) else node)
        ]
        values += len(level)
        if any(isinstance(node, list) and len(node) > _ALTERNATIVES for node in level):
            raise PydanticCustomError(
                "too_long", f"must hold no list of more than {_ALTERNATIVES} values"
            )
        if not level:
            return value
        if values > _VALUES:
            break
    raise PydanticCustomError(
        "too_large", f"must hold at most {_DEPTH} levels and {_VALUES} values"
    )


def _points_outside(node: dict[str, Any]) -> bool:
    target = node.get("$ref")
    return isinstance(target, str) and not target.startswith("#")


def _at_most(count: int) -> BeforeValidator:
    """Pydantic counts the entries of a mapping only after it has read them all."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > count:
            raise PydanticCustomError("too_many", f"must hold at most {count} entries")
        return value

    return BeforeValidator(check)


FreeObject = Annotated[dict[str, Any], AfterValidator(_bounded)]
Positive = Annotated[int, Field(ge=1, le=10_000_000)]
Label = Annotated[str, Field(max_length=512)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Verbosity = Literal["low", "medium", "high"]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Label], Field(max_length=16), _at_most(16)
]
Stop = Annotated[str, Field(min_length=1, max_length=_STOP_CHARACTERS)]
StopField = Annotated[
    Annotated[Stop, Tag("plain")] | Annotated[list[Stop], Field(max_length=_STOPS), Tag("list")],
    TEXT_OR_LIST,
]
ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class TextPart(Closed):
    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: FreeObject | None = None


class RefusalPart(Closed):
    type: Literal["refusal"]
    refusal: str


class MediaPart(Closed):
    """Admitted or refused by what the model can take, in `bodies.admit`."""

    type: Literal["image_url", "input_audio", "file"]
    image_url: FreeObject | None = None
    input_audio: FreeObject | None = None
    file: FreeObject | None = None
    prompt_cache_breakpoint: FreeObject | None = None


Part = Annotated[TextPart | RefusalPart | MediaPart, Field(discriminator="type")]
Content = Annotated[
    Annotated[str, Tag("plain")]
    | Annotated[list[Part], Field(min_length=1, max_length=1000), Tag("list")],
    TEXT_OR_LIST,
]


class FunctionCall(Closed):
    name: Annotated[str, Field(max_length=256)]
    arguments: str


class ToolCall(Closed):
    id: Annotated[str, Field(max_length=256)]
    type: Literal["function"]
    function: FunctionCall


class SystemMessage(Closed):
    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(Closed):
    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(Closed):
    role: Literal["assistant"]
    content: Content | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=128)] | None = None
    # What SDKs send back when a program appends an answer's message as it is.
    annotations: Annotated[list[FreeObject], Field(max_length=1000)] | None = None
    audio: FreeObject | None = None
    function_call: FreeObject | None = None


class ToolMessage(Closed):
    role: Literal["tool"]
    content: Content
    tool_call_id: Annotated[str, Field(max_length=256)]


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class Function(Closed):
    name: ToolName
    description: str | None = None
    parameters: FreeObject | None = None
    strict: bool | None = None


class Tool(Closed):
    type: Literal["function"]
    function: Function


class NamedFunction(Closed):
    name: ToolName


class NamedTool(Closed):
    type: Literal["function"]
    function: NamedFunction


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("plain")]
    | Annotated[NamedTool, Tag("object")],
    TEXT_OR_OBJECT,
]


class JsonSchema(Closed):
    name: ToolName
    description: str | None = None
    schema_: Annotated[FreeObject | None, Field(alias="schema")] = None
    strict: bool | None = None


class TextFormat(Closed):
    type: Literal["text"]


class JsonObjectFormat(Closed):
    type: Literal["json_object"]


class JsonSchemaFormat(Closed):
    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
]


class StreamOptions(Closed):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Sampling(Closed):
    model: Annotated[str, Field(min_length=1, max_length=256)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: (
        Annotated[
            dict[str, Annotated[float, Field(ge=-100, le=100)]],
            Field(max_length=1024),
            _at_most(1024),
        ]
        | None
    ) = None
    max_tokens: Positive | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopField | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    user: Label | None = None


class ChatBody(Sampling):
    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    audio: FreeObject | None = None
    function_call: str | FreeObject | None = None
    functions: Annotated[list[FreeObject], Field(max_length=128)] | None = None
    logprobs: bool | None = None
    max_completion_tokens: Positive | None = None
    metadata: Metadata | None = None
    modalities: Annotated[list[Literal["text", "audio"]], Field(max_length=2)] | None = None
    moderation: FreeObject | None = None
    parallel_tool_calls: bool | None = None
    prediction: FreeObject | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_options: FreeObject | None = None
    prompt_cache_retention: Label | None = None
    reasoning_effort: Effort | None = None
    response_format: ResponseFormat | None = None
    safety_identifier: Label | None = None
    service_tier: Label | None = None
    store: bool | None = None
    tool_choice: ToolChoice | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    verbosity: Verbosity | None = None
    web_search_options: FreeObject | None = None


Token = Annotated[int, Field(ge=0, lt=2**31)]
Tokens = Annotated[list[Token], Field(min_length=1, max_length=1_000_000, fail_fast=True)]
TokenLists = Annotated[list[Tokens], Field(min_length=1, max_length=2048, fail_fast=True)]


class CompletionBody(Sampling):
    prompt: Annotated[
        Annotated[str, Tag("plain")]
        | Annotated[list[str], Field(min_length=1, max_length=2048), Tag("texts")]
        | Annotated[Tokens, Tag("tokens")]
        | Annotated[TokenLists, Tag("token lists")],
        _TEXTS_OR_TOKENS,
    ]
    best_of: Annotated[int, Field(ge=1, le=20)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    suffix: str | None = None


_Embedded = Annotated[str, Field(min_length=1)]


class EmbeddingBody(Closed):
    model: Annotated[str, Field(min_length=1, max_length=256)]
    input: Annotated[
        Annotated[_Embedded, Tag("plain")]
        | Annotated[list[_Embedded], Field(min_length=1, max_length=2048), Tag("texts")]
        | Annotated[Tokens, Tag("tokens")]
        | Annotated[TokenLists, Tag("token lists")],
        _TEXTS_OR_TOKENS,
    ]
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: Label | None = None
