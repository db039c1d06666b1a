"""From a body to the ids that a model reads: the one way there, which training goes too."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.engines.openvino.chat import encode_chat
from freehold.engines.openvino.template import ChatTemplate
from freehold.engines.openvino.tokenizer import Tokenizer
from freehold.engines.openvino.tools import Told, Tools


@dataclass(frozen=True, slots=True)
class Prompt:
    tokens: list[int]
    text: str  # a completion's; chat has none
    told: Told | None = None  # a chat's


class Prompts:
    """Of one model."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self.tools = Tools(template, tokenizer)

    def chat(self, body: dict[str, Any], *, add_generation_prompt: bool = True) -> Prompt:
        """Raises `UserError` where the template refuses the messages."""
        told = self.tools.told(body)
        tokens = encode_chat(
            self._tokenizer,
            self._template,
            told.messages,
            told.tools,
            add_generation_prompt=add_generation_prompt,
            markers=self.tools.markers,
        )
        return Prompt(tokens, "", told)


def template_of(tokenizer: Tokenizer, digest: str | None = None) -> ChatTemplate:
    """The model's own. Raises `UNSUPPORTED_ENDPOINT` where it has none, `DIGEST_MISMATCH`
    where it is not the one that is expected."""
    return ChatTemplate(
        tokenizer.chat_template,
        expected_digest=digest,
        bos_token=tokenizer.text_of(tokenizer.bos),
        eos_token=tokenizer.text_of(tokenizer.eos),
    )


def prompts_of(files: Mapping[str, Path]) -> tuple[Tokenizer, ChatTemplate, Prompts]:
    """Of a stored model, whose files are given by their names."""
    tokenizer = Tokenizer.of_model(files)
    template = template_of(tokenizer)
    return tokenizer, template, Prompts(tokenizer, template)
