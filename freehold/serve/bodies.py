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
from freehold.serve.chat_body import ChatBody, CompletionBody, EmbeddingBody
from freehold.serve.responses_body import ResponsesBody, to_chat

RESPONSES = "responses"
_MODELS: dict[str, type[BaseModel]] = {
    CHAT: ChatBody,
    COMPLETIONS: CompletionBody,
    EMBEDDINGS: EmbeddingBody,
    RESPONSES: ResponsesBody,
}
_ADAPTERS = {endpoint: TypeAdapter(model) for endpoint, model in _MODELS.items()}

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
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("auto", "none"),
    "tools": ([],),
    "top_logprobs": (0,),
    "encoding_format": ("float", "base64"),
}
_SCHEMA_DEPTH, _SCHEMA_NODES = 32, 5000


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
    except orjson.JSONDecodeError:
        raise UserError(
            Code.INVALID_JSON, "The body is not valid JSON in UTF-8: correct it."
        ) from None
    if not isinstance(data, dict):
        raise UserError(Code.INVALID_JSON, "The body must be a JSON object.")
    try:
        _ADAPTERS[endpoint].validate_python(data)
    except ValidationError as error:
        raise _refused(error, data) from None
    data = {name: value for name, value in data.items() if value is not None}
    options = data.get("stream_options") or {}
    if options and not data.get("stream"):
        raise UserError(
            Code.INVALID_VALUE, "stream_options needs `stream: true`.", param="stream_options"
        )
    return Body(
        endpoint=endpoint,
        model=data["model"],
        stream=bool(data.get("stream")),
        include_usage=bool(options.get("include_usage")),
        n=data.get("n", 1),
        data=data,
    )


def admit(body: Body, capabilities: Capabilities) -> dict[str, Any]:
    """The body as the engine gets it. Raises `UNSUPPORTED_PARAMETER` by name."""
    endpoint, data = body.endpoint, body.data
    if endpoint == RESPONSES:
        endpoint, data = CHAT, to_chat(data)
    known = capabilities.fields.get(endpoint)
    if known is None:
        raise UserError(
            Code.UNSUPPORTED_ENDPOINT,
            f"This model does not serve /v1/{body.endpoint}: "
            f"it serves {', '.join(f'/v1/{name}' for name in sorted(capabilities.endpoints))}.",
            param="model",
        )
    admitted: dict[str, Any] = {}
    for name, value in data.items():
        if name in _CONSUMED:
            continue
        if name in known:
            admitted[name] = value
        elif not (name == "n" or value in _NO_EFFECT.get(name, ())):
            raise UserError(
                Code.UNSUPPORTED_PARAMETER,
                f"The parameter {name!r} is not supported by this model's engine: leave it out.",
                param=name,
            )
    _check(endpoint, admitted, capabilities)
    return admitted


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
    for index, tool in enumerate(data.get("tools", ())):
        check_schema(tool["function"].get("parameters"), f"tools[{index}].function.parameters")
    schema = data.get("response_format", {}).get("json_schema", {}).get("schema")
    check_schema(schema, "response_format.json_schema.schema")
    if not capabilities.vision:
        data["messages"] = [
            _text_only(message, index) for index, message in enumerate(data["messages"])
        ]


def _text_only(message: dict[str, Any], index: int) -> dict[str, Any]:
    """Parts become one text; `developer`, OpenAI's newer name, becomes `system`."""
    content = message.get("content")
    if message["role"] != "developer" and not isinstance(content, list):
        return message
    changed = dict(message)
    if message["role"] == "developer":
        changed["role"] = "system"
    if isinstance(content, list):
        for place, part in enumerate(content):
            if part["type"] not in ("text", "refusal"):
                raise UserError(
                    Code.UNSUPPORTED_PARAMETER,
                    "This model reads text only: send no images, audio or files.",
                    param=f"messages[{index}].content[{place}]",
                )
        changed["content"] = "".join(
            part.get("text") or part.get("refusal") or "" for part in content
        )
    return changed


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
        if text == "":
            raise UserError(
                Code.INVALID_VALUE, "An empty text cannot be embedded.", param=f"input[{index}]"
            )


def check_schema(schema: Any, param: str) -> None:
    """Bounds a JSON schema before an engine compiles it for everybody's step."""
    level, nodes = [schema], 0
    for _ in range(_SCHEMA_DEPTH):
        level = [
            inner
            for node in level
            if isinstance(node, dict | list)
            for inner in (node.values() if isinstance(node, dict) else node)
        ]
        nodes += len(level)
        if not level:
            return
        if nodes > _SCHEMA_NODES:
            break
    raise UserError(
        Code.INVALID_VALUE,
        f"This schema is too large: at most {_SCHEMA_DEPTH} levels and {_SCHEMA_NODES} values.",
        param=param,
    )


def _refused(error: ValidationError, data: Any) -> UserError:
    problem = error.errors(include_url=False, include_context=True)[0]
    kind = problem["type"]
    param = _path(problem["loc"], data, kind == "missing")
    if kind == "extra_forbidden":
        return UserError(
            Code.UNKNOWN_PARAMETER, f"There is no parameter {param[:60]!r}: remove it.", param=param
        )
    if kind == "missing":
        return UserError(Code.INVALID_VALUE, f"{param!r} is missing: add it.", param=param)
    said = problem["msg"].replace("Input should", "should").replace("should be", "must be")
    return UserError(
        Code.INVALID_VALUE, f"{param[:120]}: {said[0].lower()}{said[1:200]}.", param=param[:200]
    )


def _path(loc: tuple[int | str, ...], data: Any, is_missing: bool) -> str:
    """OpenAI's way to write a place, without the names of pydantic's union branches."""
    text, node = "", data
    for position, part in enumerate(loc):
        if isinstance(part, int) and isinstance(node, list):
            text += f"[{part}]"
            node = node[part]
        elif isinstance(node, dict) and (part in node or (is_missing and position == len(loc) - 1)):
            text += f".{part}" if text else str(part)
            node = node.get(part)
    return text or "body"


def openapi_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas of the four bodies, for the OpenAPI document."""
    return {
        endpoint: model.model_json_schema(ref_template="#/components/schemas/{model}")
        for endpoint, model in _MODELS.items()
    }
