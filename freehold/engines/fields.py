"""OpenAI's fields that our own engines honour; whatever else is refused by name."""

from freehold.core.engine import CHAT, COMPLETIONS, EMBEDDINGS

# What was seen to have an effect, field by field; the contract suite sees it again. `n`
# is not here: llama.cpp's usage counts one choice only, so the gateway makes the calls
# itself. `reasoning_effort` depends on the template.
_SAMPLING = {
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_tokens",
    "presence_penalty",
    "seed",
    "stop",
    "temperature",
    "top_p",
}
TEXT_FIELDS = {
    CHAT: frozenset(
        _SAMPLING
        | {
            "max_completion_tokens",
            "messages",
            "parallel_tool_calls",
            "response_format",
            "tool_choice",
            "tools",
            "top_logprobs",
        }
    ),
    COMPLETIONS: frozenset(_SAMPLING | {"prompt"}),
}
EMBEDDING_FIELDS = {EMBEDDINGS: frozenset({"input", "encoding_format"})}
