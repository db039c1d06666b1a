"""OpenAI's chat and completion bodies, closed: what is not here is refused by name."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

_STOPS, _STOP_CHARACTERS = 4, 1024


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _kind(value: Any) -> str:
    """Which branch of a union a value belongs to, so that an error names one cause."""
    return "list" if isinstance(value, list) else "object" if isinstance(value, dict) else "plain"


Text = str
Positive = Annotated[int, Field(ge=1, le=10_000_000)]
Stop = Annotated[str, Field(min_length=1, max_length=_STOP_CHARACTERS)]
StopField = Annotated[
    Annotated[Stop, Tag("plain")]
    | Annotated[list[Stop], Field(max_length=_STOPS), Tag("list")]
    | Annotated[dict[str, str], Field(max_length=0), Tag("object")],
    Discriminator(_kind),
]
ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Part(Closed):
    """A part of a message. Other parts than text are admitted or refused by what the
    model can take, in `bodies.admit`."""

    type: Literal["text", "image_url", "input_audio", "file", "refusal"]
    text: str | None = None
    refusal: str | None = None
    image_url: dict[str, Any] | None = None
    input_audio: dict[str, Any] | None = None
    file: dict[str, Any] | None = None


Content = Annotated[
    Annotated[str, Tag("plain")]
    | Annotated[list[Part], Field(min_length=1, max_length=1000), Tag("list")]
    | Annotated[Part, Tag("object")],
    Discriminator(_kind),
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
    audio: None = None
    function_call: None = None


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
    parameters: dict[str, Any] | None = None
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
    | Annotated[NamedTool, Tag("object")]
    | Annotated[list[Any], Field(max_length=0), Tag("list")],
    Discriminator(_kind),
]


class JsonSchema(Closed):
    name: ToolName
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
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
        Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)]
        | None
    ) = None
    max_tokens: Positive | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopField | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None


class ChatBody(Sampling):
    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    audio: dict[str, Any] | None = None
    function_call: str | dict[str, Any] | None = None
    functions: list[dict[str, Any]] | None = None
    logprobs: bool | None = None
    max_completion_tokens: Positive | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    modalities: list[str] | None = None
    moderation: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    prediction: dict[str, Any] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=512)] | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    reasoning_effort: str | None = None
    response_format: ResponseFormat | None = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
    service_tier: str | None = None
    store: bool | None = None
    tool_choice: ToolChoice | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    verbosity: str | None = None
    web_search_options: dict[str, Any] | None = None


class CompletionBody(Sampling):
    prompt: Annotated[
        Annotated[str, Tag("plain")]
        | Annotated[list[Any], Field(min_length=1, max_length=2048), Tag("list")]
        | Annotated[dict[str, str], Field(max_length=0), Tag("object")],
        Discriminator(_kind),
    ]
    best_of: Annotated[int, Field(ge=1, le=20)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    suffix: str | None = None


class EmbeddingBody(Closed):
    model: Annotated[str, Field(min_length=1, max_length=256)]
    input: Annotated[
        Annotated[str, Field(min_length=1), Tag("plain")]
        | Annotated[list[Any], Field(min_length=1, max_length=2048), Tag("list")]
        | Annotated[dict[str, str], Field(max_length=0), Tag("object")],
        Discriminator(_kind),
    ]
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
