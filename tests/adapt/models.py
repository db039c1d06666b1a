"""A model's tokenizer and template, small and invented, as training and serving read them."""

from pathlib import Path

import orjson
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers

from freehold.engines.openvino.prompt import Prompts, template_of
from freehold.engines.openvino.tokenizer import Tokenizer

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Writes of earlier answers only what follows their thoughts, as reasoning models' do.
THINKING = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content.split('</think>')[-1] if not loop.last else message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Opens an answer with thoughts that no history has.
OPENING = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
_SPECIALS = ("<|im_start|>", "<|im_end|>")


def write_vocabulary(folder: Path, template: str | None = CHATML) -> None:
    """Bytes as tokens, and those that chats are written with."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = Library(models.BPE({text: id for id, text in enumerate(alphabet)}, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(list(_SPECIALS))
    folder.mkdir(exist_ok=True)
    library.save(str(folder / "tokenizer.json"))
    told = {"eos_token": "<|im_end|>", "chat_template": template, "add_bos_token": False}
    (folder / "tokenizer_config.json").write_bytes(orjson.dumps(told))
    (folder / "config.json").write_bytes(orjson.dumps({"eos_token_id": len(alphabet) + 1}))


def encoding(folder: Path, template: str = CHATML) -> tuple[Tokenizer, Prompts]:
    write_vocabulary(folder, template)
    tokenizer = Tokenizer.from_folder(folder)
    return tokenizer, Prompts(tokenizer, template_of(tokenizer))
