"""The body of `/v1/responses`, closed, and its translation into a chat body."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from freehold.core.errors import Code, UserError
from freehold.serve.protocol.chat_body import (
    TEXT_OR_LIST,
    TEXT_OR_OBJECT,
    Closed,
    Effort,
    FreeObject,
    Label,
    Metadata,
    Positive,
    ToolName,
    Verbosity,
)

_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}


class InputText(Closed):
    type: Literal["input_text", "output_text"]
    text: str
    annotations: Annotated[list[FreeObject], Field(max_length=1000)] | None = None
    logprobs: list[Any] | None = None
    prompt_cache_breakpoint: FreeObject | None = None


class InputRefusal(Closed):
    type: Literal["refusal"]
    refusal: str


class InputMedia(Closed):
    """Known so that it is refused by its place, in `to_chat`."""

    type: Literal["input_image", "input_file", "input_audio"]
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    input_audio: FreeObject | None = None
    prompt_cache_breakpoint: FreeObject | None = None


InputPart = Annotated[InputText | InputRefusal | InputMedia, Field(discriminator="type")]
InputContent = Annotated[
    Annotated[str, Tag("plain")] | Annotated[list[InputPart], Field(max_length=1000), Tag("list")],
    TEXT_OR_LIST,
]


class InputMessage(Closed):
    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: InputContent
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class InputCall(Closed):
    type: Literal["function_call"]
    call_id: Annotated[str, Field(max_length=256)]
    name: Annotated[str, Field(max_length=256)]
    arguments: str
    id: str | None = None
    status: str | None = None
    namespace: str | None = None
    caller: FreeObject | None = None
    async_: Annotated[bool | None, Field(alias="async")] = None


class InputCallOutput(Closed):
    type: Literal["function_call_output"]
    call_id: Annotated[str, Field(max_length=256)]
    output: InputContent
    id: str | None = None
    status: str | None = None
    name: str | None = None
    namespace: str | None = None
    caller: FreeObject | None = None


def _item_kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    return kind if kind in ("function_call", "function_call_output") else "message"


InputItem = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[InputCall, Tag("function_call")]
    | Annotated[InputCallOutput, Tag("function_call_output")],
    Discriminator(_item_kind),
]


class ResponseTool(Closed):
    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: FreeObject | None = None
    strict: bool | None = None
    allowed_callers: Annotated[list[Label], Field(max_length=16)] | None = None
    async_: Annotated[bool | None, Field(alias="async")] = None
    defer_loading: bool | None = None
    output_schema: FreeObject | None = None


class ChosenTool(Closed):
    type: Literal["function"]
    name: ToolName


class ResponseFormatText(Closed):
    type: Literal["text", "json_object", "json_schema"]
    name: ToolName | None = None
    description: str | None = None
    schema_: Annotated[FreeObject | None, Field(alias="schema")] = None
    strict: bool | None = None


class TextOptions(Closed):
    format: ResponseFormatText | None = None
    verbosity: Verbosity | None = None


class ResponsesStreamOptions(Closed):
    include_obfuscation: bool | None = None


class ReasoningOptions(Closed):
    effort: Effort | None = None
    context: str | None = None
    generate_summary: str | None = None
    mode: str | None = None
    summary: str | None = None


Includable = Literal[
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
]


class ResponsesBody(Closed):
    model: Annotated[str, Field(min_length=1, max_length=256)]
    input: Annotated[
        Annotated[str, Field(min_length=1), Tag("plain")]
        | Annotated[list[InputItem], Field(min_length=1, max_length=10_000), Tag("list")],
        TEXT_OR_LIST,
    ]
    instructions: str | None = None
    max_output_tokens: Positive | None = None
    metadata: Metadata | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningOptions | None = None
    stream: bool | None = None
    stream_options: ResponsesStreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    text: TextOptions | None = None
    tool_choice: (
        Annotated[
            Annotated[Literal["none", "auto", "required"], Tag("plain")]
            | Annotated[ChosenTool, Tag("object")],
            TEXT_OR_OBJECT,
        ]
        | None
    ) = None
    tools: Annotated[list[ResponseTool], Field(max_length=128)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    truncation: Literal["disabled", "auto"] | None = None
    user: Label | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    service_tier: Label | None = None
    store: bool | None = None
    include: Annotated[list[Includable], Field(max_length=16)] | None = None
    access_programs: FreeObject | None = None
    background: bool | None = None
    background_options: FreeObject | None = None
    context_management: Annotated[list[FreeObject], Field(max_length=16)] | None = None
    conversation: str | FreeObject | None = None
    image: FreeObject | None = None
    max_tool_calls: int | None = None
    moderation: FreeObject | None = None
    previous_response_id: str | None = None
    prompt: FreeObject | None = None
    prompt_cache_options: FreeObject | None = None
    prompt_cache_retention: Label | None = None


_STATELESS = "this service keeps no responses; send the whole conversation in `input`"
_CACHING = "caching is not the caller's to set"
_REFUSED = {
    "access_programs": "this service has none",
    "background": _STATELESS,
    "background_options": _STATELESS,
    "context_management": _STATELESS,
    "conversation": _STATELESS,
    "image": "this endpoint takes text only",
    "max_tool_calls": "there are no built-in tools",
    "moderation": "there is no moderation model",
    "previous_response_id": _STATELESS,
    "prompt": "prompts are not stored here; send the text in `instructions`",
    "prompt_cache_options": _CACHING,
    "prompt_cache_retention": _CACHING,
    "store": _STATELESS,
}
_REFUSED_IN_TOOLS = ("allowed_callers", "async", "defer_loading", "output_schema")
_SAME_MEANING = {
    "max_output_tokens": "max_completion_tokens",
    "parallel_tool_calls": "parallel_tool_calls",
    "service_tier": "service_tier",
    "temperature": "temperature",
    "top_p": "top_p",
}
# How a refusal of the chat body is told to somebody who wrote the other one.
_THEIR_NAMES = {
    "logprobs": "top_logprobs",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
}


def to_chat(data: dict[str, Any]) -> dict[str, Any]:
    """The same request as a chat body. Raises `UNSUPPORTED_PARAMETER` by name."""
    for name, why in _REFUSED.items():
        if data.get(name) not in (None, False):
            raise _unsupported(name, why)
    if data.get("truncation") == "auto":
        raise _unsupported("truncation", "shorten the input yourself")
    chat: dict[str, Any] = {"messages": _messages(data)}
    for theirs, ours in _SAME_MEANING.items():
        if data.get(theirs) is not None:
            chat[ours] = data[theirs]
    if data.get("top_logprobs"):
        chat |= {"logprobs": True, "top_logprobs": data["top_logprobs"]}
    elif "message.output_text.logprobs" in (data.get("include") or ()):
        chat["logprobs"] = True
    _put_reasoning(chat, data.get("reasoning") or {})
    _put_tools(chat, data)
    _put_format(chat, data.get("text") or {})
    return chat


def in_their_words(error: UserError) -> UserError:
    """A refusal by the chat body's rules, with the names of the Responses API."""
    ours, dot, rest = (error.param or "").partition(".")
    theirs = _THEIR_NAMES.get(ours)
    if theirs is None:
        return error
    param = theirs if ours == "response_format" else f"{theirs}{dot}{rest}"
    return UserError(error.code, error.message.replace(ours, theirs), param=param)


def _put_reasoning(chat: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if value is None:
            continue
        if name != "effort":
            raise _unsupported(f"reasoning.{name}", "only reasoning.effort can be passed on")
        chat["reasoning_effort"] = value


def _put_tools(chat: dict[str, Any], data: dict[str, Any]) -> None:
    if data.get("tools"):
        chat["tools"] = [_tool(tool, index) for index, tool in enumerate(data["tools"])]
    choice = data.get("tool_choice")
    if isinstance(choice, dict):
        choice = {"type": "function", "function": {"name": choice["name"]}}
    if choice is not None:
        chat["tool_choice"] = choice


def _tool(tool: dict[str, Any], index: int) -> dict[str, Any]:
    for name in _REFUSED_IN_TOOLS:
        if tool.get(name):
            raise _unsupported(f"tools[{index}].{name}", "tools are called by the caller only")
    kept = ("name", "description", "parameters", "strict")
    function = {name: tool[name] for name in kept if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _put_format(chat: dict[str, Any], text: dict[str, Any]) -> None:
    if text.get("verbosity") is not None:
        chat["verbosity"] = text["verbosity"]
    wanted = text.get("format") or {}
    kind = wanted.get("type")
    if kind == "json_object":
        chat["response_format"] = {"type": "json_object"}
    elif kind == "json_schema":
        if not wanted.get("name") or wanted.get("schema") is None:
            raise UserError(
                Code.INVALID_VALUE,
                "A json_schema format needs `name` and `schema`.",
                param="text.format",
            )
        kept = ("name", "description", "schema", "strict")
        schema = {name: wanted[name] for name in kept if wanted.get(name) is not None}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}


def _messages(data: dict[str, Any]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if data.get("instructions"):
        messages.append({"role": "system", "content": data["instructions"]})
    given = data["input"]
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    for index, item in enumerate(given):
        kind = item.get("type")
        if kind == "function_call":
            _append_call(messages, item)
        elif kind == "function_call_output":
            output = _text(item["output"], f"input[{index}].output")
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": output})
        else:
            content = _text(item["content"], f"input[{index}].content")
            messages.append({"role": _ROLES[item["role"]], "content": content})
    return messages


def _append_call(messages: list[dict[str, Any]], item: dict[str, Any]) -> None:
    """Calls that follow each other are one assistant message with several calls."""
    call = {
        "id": item["call_id"],
        "type": "function",
        "function": {"name": item["name"], "arguments": item["arguments"]},
    }
    if messages and messages[-1].get("tool_calls"):
        messages[-1]["tool_calls"].append(call)
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _text(content: str | list[dict[str, Any]], where: str) -> str:
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for index, part in enumerate(content):
        if part["type"] in ("input_image", "input_file", "input_audio"):
            raise UserError(
                Code.UNSUPPORTED_PARAMETER,
                "This endpoint reads text only: send no images, audio or files.",
                param=f"{where}[{index}]",
            )
        if part.get("prompt_cache_breakpoint"):
            raise _unsupported(f"{where}[{index}].prompt_cache_breakpoint", _CACHING)
        texts.append(part["refusal"] if part["type"] == "refusal" else part["text"])
    return "\n".join(texts)


def _unsupported(name: str, why: str) -> UserError:
    return UserError(
        Code.UNSUPPORTED_PARAMETER, f"The parameter {name!r} is not supported: {why}.", param=name
    )
