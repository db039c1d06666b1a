"""Request bodies: parsed once, closed, then trusted.

Two steps, because they fail differently: `parse` knows OpenAI's API and refuses
what it does not define; `admit` knows the engine and refuses, by name, what OpenAI
defines and the engine cannot do. Nothing is ever dropped in silence.
"""

from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError

from freehold.core.engine import CHAT, COMPLETIONS, EMBEDDINGS, Capabilities
from freehold.core.errors import Code, UserError
from freehold.serve.protocol.chat_body import ChatBody, CompletionBody, EmbeddingBody
from freehold.serve.protocol.responses_body import ResponsesBody, in_their_words, to_chat

RESPONSES = "responses"
SHAPES: dict[str, type[BaseModel]] = {
    CHAT: ChatBody,
    COMPLETIONS: CompletionBody,
    EMBEDDINGS: EmbeddingBody,
    RESPONSES: ResponsesBody,
}
_NO_MEMORY = "Not enough memory"  # orjson says so by the same exception
_ADAPTERS = {
    endpoint: (TypeAdapter(model), frozenset(model.model_fields))
    for endpoint, model in SHAPES.items()
}

# The gateway's own: read here, never sent on. Labels stay labels.
_CONSUMED = frozenset(
    {
        "metadata",
        "model",
        "prompt_cache_key",
        "safety_identifier",
        "stream",
        "stream_options",
        "user",
    }
)
# Values that ask for what happens anyway, so that an engine need not know the field.
_NO_EFFECT: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("auto", "none"),
    "tools": ([],),
    "top_logprobs": (0,),
    "encoding_format": ("float", "base64"),
    "verbosity": ("medium",),
}
_SHOWN_NAME, _SHOWN_PATH = 60, 200
_MOST_MISTAKES = 1000


@dataclass(frozen=True, slots=True)
class Body:
    """`data` is the caller's own object, validated, with nulls left out."""

    endpoint: str
    model: str
    stream: bool
    include_usage: bool
    n: int
    data: dict[str, Any]


def parse(endpoint: str, raw: bytes) -> Body:
    """Raises `UserError`: `INVALID_JSON`, `UNKNOWN_PARAMETER` or `INVALID_VALUE`,
    with the path of the first field that is wrong."""
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if error.msg.startswith(_NO_MEMORY):
            raise UserError(
                Code.OVERLOADED, "The gateway is out of memory: try again.", retry_after_s=1
            ) from None
        raise UserError(
            Code.INVALID_JSON, "The body is not valid JSON in UTF-8: correct it."
        ) from None
    if not isinstance(data, dict):
        raise UserError(Code.INVALID_JSON, "The body must be a JSON object.")
    adapter, names = _ADAPTERS[endpoint]
    if len(data) > len(names):  # pydantic would describe each of a million unknown names
        raise _unknown(next(name for name in data if name not in names))
    try:
        adapter.validate_python(data)
    except ValidationError as error:
        raise _refused(error, data) from None
    data = {name: value for name, value in data.items() if value is not None}
    options = data.get("stream_options")
    if options:
        _check_stream_options(options, data)
    else:
        options = {}
    return Body(
        endpoint=endpoint,
        model=data["model"],
        stream=bool(data.get("stream")),
        include_usage=bool(options.get("include_usage")),
        n=data.get("n", 1),
        data=data,
    )


def _check_stream_options(options: dict[str, Any], data: dict[str, Any]) -> None:
    if not data.get("stream"):
        raise UserError(
            Code.INVALID_VALUE, "stream_options needs `stream: true`.", param="stream_options"
        )
    if options.get("include_obfuscation"):
        raise _unsupported("stream_options.include_obfuscation")


def admit(body: Body, capabilities: Capabilities) -> dict[str, Any]:
    """The body as the engine gets it. Raises `UNSUPPORTED_PARAMETER` by name."""
    endpoint = CHAT if body.endpoint == RESPONSES else body.endpoint
    known = capabilities.fields.get(endpoint)
    if known is None:
        raise UserError(
            Code.UNSUPPORTED_ENDPOINT,
            f"This model does not serve /v1/{body.endpoint}: "
            f"it serves {', '.join(f'/v1/{name}' for name in sorted(capabilities.endpoints))}.",
            param="model",
        )
    if body.endpoint != RESPONSES:
        return _admit(endpoint, body.data, known, capabilities)
    chat = to_chat(body.data)
    try:
        return _admit(endpoint, chat, known, capabilities)
    except UserError as error:
        raise in_their_words(error) from None


def _admit(
    endpoint: str, data: dict[str, Any], known: frozenset[str], capabilities: Capabilities
) -> dict[str, Any]:
    admitted: dict[str, Any] = {}
    for name, value in data.items():
        if name in _CONSUMED:
            continue
        if name in known:
            admitted[name] = value
        elif not (name == "n" or _has_no_effect(name, value)):
            raise _unsupported(name)
    _check(endpoint, admitted, capabilities)
    return admitted


def _has_no_effect(name: str, value: Any) -> bool:
    """`False` and `0` are equal to Python and not to OpenAI: completions take
    `logprobs: 0` for one number a token."""
    is_bool = isinstance(value, bool)
    return any(
        value == harmless and isinstance(harmless, bool) == is_bool
        for harmless in _NO_EFFECT.get(name, ())
    )


def _check(endpoint: str, data: dict[str, Any], capabilities: Capabilities) -> None:
    """What no field can say by itself."""
    if endpoint == CHAT:
        _check_chat(data, capabilities)
    elif endpoint == COMPLETIONS and isinstance(data["prompt"], list):
        prompt = data["prompt"]
        if len(prompt) == 1 and isinstance(prompt[0], str):
            data["prompt"] = prompt[0]
        elif not capabilities.vision:  # an upstream of its own decides by itself
            raise UserError(
                Code.UNSUPPORTED_PARAMETER,
                "Only one prompt, as text, is supported: send one request for each.",
                param="prompt",
            )
    elif endpoint == EMBEDDINGS:
        _check_embedding(data, capabilities)


def _check_chat(data: dict[str, Any], capabilities: Capabilities) -> None:
    short, long = data.get("max_tokens"), data.get("max_completion_tokens")
    if short is not None and long is not None and short != long:
        raise UserError(
            Code.INVALID_VALUE,
            "max_tokens and max_completion_tokens differ: send only max_completion_tokens.",
            param="max_tokens",
        )
    if short is not None and long is not None:
        del data["max_tokens"]
    if data.get("top_logprobs") and not data.get("logprobs"):
        raise UserError(
            Code.INVALID_VALUE, "top_logprobs needs `logprobs: true`.", param="top_logprobs"
        )
    if isinstance(data.get("tool_choice"), dict):
        wanted = data["tool_choice"]["function"]["name"]
        if wanted not in [tool["function"]["name"] for tool in data.get("tools", ())]:
            raise UserError(
                Code.INVALID_VALUE,
                f"tool_choice names {wanted[:60]!r}, which is not among the tools.",
                param="tool_choice",
            )
    elif data.get("tool_choice") == "required" and not data.get("tools"):
        raise UserError(Code.INVALID_VALUE, "tool_choice needs tools.", param="tool_choice")
    if not capabilities.vision:
        data["messages"] = [
            _text_only(message, index) for index, message in enumerate(data["messages"])
        ]


def _text_only(message: dict[str, Any], index: int) -> dict[str, Any]:
    """Parts become one text, `developer`, OpenAI's newer name, becomes `system`, and
    what engines do not know of an answer that is sent back is left out."""
    content, role = message.get("content"), message["role"]
    if type(content) is str and role in ("user", "system") and None not in message.values():
        return message
    plain = {
        name: value
        for name, value in message.items()
        if value is not None and name not in ("annotations", "refusal")
    }
    if role == "developer":
        plain["role"] = "system"
    if isinstance(content, list):
        parts = enumerate(content)
        plain["content"] = "\n".join(
            _text_of(part, f"messages[{index}].content[{place}]") for place, part in parts
        )
    if role == "assistant":
        _check_assistant(plain, message, index)
    return plain


def _text_of(part: dict[str, Any], where: str) -> str:
    if part.get("prompt_cache_breakpoint"):
        raise _unsupported(f"{where}.prompt_cache_breakpoint")
    if part["type"] not in ("text", "refusal"):
        raise UserError(
            Code.UNSUPPORTED_PARAMETER,
            "This model reads text only: send no images, audio or files.",
            param=where,
        )
    text: str = part[part["type"]]
    return text


def _check_assistant(plain: dict[str, Any], message: dict[str, Any], index: int) -> None:
    for name in ("audio", "function_call"):
        if name in plain:
            raise _unsupported(f"messages[{index}].{name}")
    if not plain.get("tool_calls"):
        plain.pop("tool_calls", None)
        if "content" not in plain and message.get("refusal") is None:
            raise UserError(
                Code.INVALID_VALUE,
                "An assistant's message needs content or tool_calls.",
                param=f"messages[{index}].content",
            )
    plain.setdefault("content", message.get("refusal"))


def _check_embedding(data: dict[str, Any], capabilities: Capabilities) -> None:
    given = data["input"]
    if isinstance(given, str):
        return
    for index, text in enumerate(given):
        if not isinstance(text, str) and not capabilities.vision:
            raise UserError(
                Code.UNSUPPORTED_PARAMETER,
                "Only texts can be embedded here, not token numbers: send strings.",
                param=f"input[{index}]",
            )


def _unsupported(name: str) -> UserError:
    return UserError(
        Code.UNSUPPORTED_PARAMETER,
        f"The parameter {name!r} is not supported by this model's engine: leave it out.",
        param=name,
    )


def _unknown(name: str) -> UserError:
    shown = _shown(name)
    return UserError(
        Code.UNKNOWN_PARAMETER, f"There is no parameter {shown!r}: remove it.", param=shown
    )


# What OpenAI defines and nothing here can do: refused as such, not as a mistake.
_TOOLS_ELSEWHERE = "this service runs no tools itself; use tools of type 'function'"
_ITEMS_ELSEWHERE = "send messages, function calls and their outputs only"
_ELSEWHERE: dict[str, tuple[frozenset[str], str]] = {
    "messages": (frozenset({"function", "custom"}), "use tools and the role 'tool'"),
    "tools": (
        frozenset(
            {
                "apply_patch", "code_interpreter", "computer", "computer_use_preview", "custom",
                "file_search", "image_generation", "local_shell", "mcp", "namespace",
                "programmatic_tool_calling", "shell", "tool_search", "web_search",
                "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11",
            }
        ),
        _TOOLS_ELSEWHERE,
    ),
    "tool_choice": (
        frozenset(
            {
                "allowed_tools", "apply_patch", "code_interpreter", "computer",
                "computer_use", "computer_use_preview", "custom", "file_search",
                "image_generation", "mcp", "programmatic_tool_calling", "shell",
                "web_search_preview", "web_search_preview_2025_03_11",
            }
        ),
        _TOOLS_ELSEWHERE,
    ),
    "input": (
        frozenset(
            {
                "additional_tools", "apply_patch_call", "apply_patch_call_output",
                "code_interpreter_call", "compaction", "compaction_trigger", "computer_call",
                "computer_call_output", "custom_tool_call", "custom_tool_call_output",
                "file_search_call", "image_generation_call", "item_reference",
                "local_shell_call", "local_shell_call_output", "mcp_approval_request",
                "mcp_approval_response", "mcp_call", "mcp_list_tools", "program",
                "program_output", "reasoning", "shell_call", "shell_call_output",
                "tool_search_call", "tool_search_output", "web_search_call",
            }
        ),
        _ITEMS_ELSEWHERE,
    ),
}  # fmt: skip


def _refused(error: ValidationError, data: Any) -> UserError:
    if error.error_count() > _MOST_MISTAKES:
        return UserError(
            Code.INVALID_VALUE,
            f"The body is wrong in {error.error_count():,} places: compare it with /openapi.json.",
        )
    problem = error.errors(include_url=False)[0]
    kind, ctx = problem["type"], problem.get("ctx", {})
    param = _path(problem["loc"], data, kind == "missing")
    value = problem["input"]
    if kind == "extra_forbidden":
        return _unknown(param)
    if kind == "missing":
        return UserError(Code.INVALID_VALUE, f"{param!r} is missing: add it.", param=param)
    said = problem["msg"].replace("Input should", "should").replace("should be", "must be")
    said = said.replace(" after validation", "")
    if kind.startswith("union_tag"):
        field = ctx["discriminator"].strip("'")
        param = f"{param}.{field}"
        value = ctx.get("tag")
        said = f"must be one of {ctx['expected_tags']}" if value else "is missing"
    known, why = _ELSEWHERE.get(param.partition(".")[0].partition("[")[0], (frozenset(), ""))
    if isinstance(value, str) and value in known and param.endswith((".type", ".role")):
        return UserError(
            Code.UNSUPPORTED_PARAMETER, f"{param}: {value!r} is not supported: {why}.", param=param
        )
    return UserError(
        Code.INVALID_VALUE, f"{param}: {said[0].lower()}{said[1:_SHOWN_PATH]}.", param=param
    )


def _shown(name: str) -> str:
    """A caller's own name as a refusal may repeat it: one short line."""
    return (name if name.isprintable() else ascii(name)[1:-1])[:_SHOWN_NAME]


def _path(loc: tuple[int | str, ...], data: Any, is_missing: bool) -> str:
    """OpenAI's way to write a place, without the names of pydantic's union branches."""
    text, node = "", data
    for position, part in enumerate(loc):
        if isinstance(part, int) and isinstance(node, list):
            text += f"[{part}]"
            node = node[part]
        elif isinstance(node, dict) and (part in node or (is_missing and position == len(loc) - 1)):
            text += f".{_shown(str(part))}" if text else _shown(str(part))
            node = node.get(part)
    return text[:_SHOWN_PATH] or "body"
