"""The body of `/v1/responses`, closed, and its translation into a chat body."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from freehold.core.errors import Code, UserError
from freehold.serve.chat_body import Closed, Positive, ToolName, _kind

_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}


class InputPart(Closed):
    type: Literal["input_text", "output_text", "refusal", "input_image", "input_file"]
    text: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class InputMessage(Closed):
    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Annotated[str, Tag("plain")]
        | Annotated[list[InputPart], Field(max_length=1000), Tag("list")]
        | Annotated[InputPart, Tag("object")],
        Discriminator(_kind),
    ]
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


class InputCallOutput(Closed):
    type: Literal["function_call_output"]
    call_id: Annotated[str, Field(max_length=256)]
    output: str
    id: str | None = None
    status: str | None = None


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
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None


class ChosenTool(Closed):
    type: Literal["function"]
    name: ToolName


class ResponseFormatText(Closed):
    type: Literal["text", "json_object", "json_schema"]
    name: ToolName | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class TextOptions(Closed):
    format: ResponseFormatText | None = None
    verbosity: str | None = None


class ResponsesStreamOptions(Closed):
    include_obfuscation: bool | None = None


class ResponsesBody(Closed):
    model: Annotated[str, Field(min_length=1, max_length=256)]
    input: Annotated[
        Annotated[str, Field(min_length=1), Tag("plain")]
        | Annotated[list[InputItem], Field(min_length=1, max_length=10_000), Tag("list")]
        | Annotated[dict[str, str], Field(max_length=0), Tag("object")],
        Discriminator(_kind),
    ]
    instructions: str | None = None
    max_output_tokens: Positive | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: ResponsesStreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    text: TextOptions | None = None
    tool_choice: (
        Annotated[
            Annotated[Literal["none", "auto", "required"], Tag("plain")]
            | Annotated[ChosenTool, Tag("object")]
            | Annotated[list[Any], Field(max_length=0), Tag("list")],
            Discriminator(_kind),
        ]
        | None
    ) = None
    tools: Annotated[list[ResponseTool], Field(max_length=128)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    truncation: Literal["disabled", "auto"] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=512)] | None = None
    service_tier: str | None = None
    store: bool | None = None
    include: list[str] | None = None
    background: bool | None = None
    context_management: list[Any] | None = None
    conversation: str | dict[str, Any] | None = None
    max_tool_calls: int | None = None
    moderation: dict[str, Any] | None = None
    previous_response_id: str | None = None
    prompt: dict[str, Any] | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    reasoning: dict[str, Any] | None = None


_STATELESS = "this service keeps no responses; send the whole conversation in `input`"
_REFUSED = {
    "background": _STATELESS,
    "context_management": _STATELESS,
    "conversation": _STATELESS,
    "max_tool_calls": "there are no built-in tools",
    "moderation": "there is no moderation model",
    "previous_response_id": _STATELESS,
    "prompt": "prompts are not stored here; send the text in `instructions`",
    "prompt_cache_options": "caching is not the caller's to set",
    "prompt_cache_retention": "caching is not the caller's to set",
    "reasoning": "this model does not reason in a separate channel",
}


def to_chat(data: dict[str, Any]) -> dict[str, Any]:
    """The same request as a chat body. Raises `UNSUPPORTED_PARAMETER` by name."""
    for name, why in _REFUSED.items():
        if data.get(name):
            raise _unsupported(name, why)
    if data.get("store"):
        raise _unsupported("store", _STATELESS)
    if data.get("truncation") == "auto":
        raise _unsupported("truncation", "shorten the input yourself")
    chat: dict[str, Any] = {"messages": _messages(data)}
    for theirs, ours in (
        ("temperature", "temperature"),
        ("top_p", "top_p"),
        ("max_output_tokens", "max_completion_tokens"),
        ("parallel_tool_calls", "parallel_tool_calls"),
    ):
        if data.get(theirs) is not None:
            chat[ours] = data[theirs]
    if data.get("top_logprobs"):
        chat |= {"logprobs": True, "top_logprobs": data["top_logprobs"]}
    elif "message.output_text.logprobs" in (data.get("include") or ()):
        chat["logprobs"] = True
    _put_tools(chat, data)
    _put_format(chat, data.get("text") or {})
    return chat


def _put_tools(chat: dict[str, Any], data: dict[str, Any]) -> None:
    if data.get("tools"):
        chat["tools"] = [_tool(tool) for tool in data["tools"]]
        choice = data.get("tool_choice")
        if isinstance(choice, dict):
            choice = {"type": "function", "function": {"name": choice["name"]}}
        if choice is not None:
            chat["tool_choice"] = choice


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
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
        schema = {name: wanted[name] for name in ("name", "schema", "strict") if name in wanted}
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
            messages.append(
                {"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]}
            )
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
    parts = []
    for index, part in enumerate(content):
        text = part.get("text") or part.get("refusal")
        if part["type"] in ("input_image", "input_file"):
            raise UserError(
                Code.UNSUPPORTED_PARAMETER,
                "This model reads text only: send no images or files.",
                param=f"{where}[{index}]",
            )
        parts.append(text or "")
    return "\n".join(parts)


def _unsupported(name: str, why: str) -> UserError:
    return UserError(
        Code.UNSUPPORTED_PARAMETER, f"The parameter {name!r} is not supported: {why}.", param=name
    )
