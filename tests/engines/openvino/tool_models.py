"""Tiny models whose templates know tools: those of `reference/tiny` with the last words of
their vocabulary turned into the tokens of a family."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from freehold.catalog.pull import pull
from freehold.catalog.store import ModelStore
from freehold.engines.base import LocalModel
from freehold.engines.openvino.call_grammar import CallGrammar
from freehold.engines.openvino.structure import Matcher, Structure
from freehold.engines.openvino.template import ChatTemplate
from freehold.engines.openvino.tokenizer import Tokenizer
from freehold.engines.openvino.tools import Tools
from tests.engines.openvino import templates

_TINY = Path(__file__).parent / "reference" / "tiny"


@dataclass(frozen=True)
class Family:
    """`tokens` says of each whether it is a control token. `begins` and `ends` stand around
    the calls of an answer, `between` two of them; None where it makes one only."""

    tiny: str
    template: str
    tokens: Mapping[str, bool]
    begins: str
    call: str
    between: str | None
    ends: str

    def written(self, *calls: tuple[str, str]) -> str:
        """An answer's calls, of functions with arguments."""
        each = (self.call.replace("%n", name).replace("%a", made) for name, made in calls)
        return self.begins + (self.between or "").join(each) + self.ends


_HERMES = dict.fromkeys(
    ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>"), False
)
_MISTRAL = dict.fromkeys(
    (
        "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
        "[/TOOL_RESULTS]", "[INST]", "[/INST]", "[ARGS]",
    ),
    True,
)  # fmt: skip
_LLAMA = dict.fromkeys(
    ("<|python_tag|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"), True
)
_OBJECT = '{"name": "%n", "arguments": %a}'
_TAGGED = ("<tool_call>\n", _OBJECT, "\n</tool_call>\n<tool_call>\n", "\n</tool_call>")
FAMILIES = {
    "qwen": Family("qwen3", templates.HERMES, _HERMES, *_TAGGED),
    "hermes": Family("qwen2", templates.HERMES, {}, *_TAGGED),  # without tokens for it
    "llama": Family(
        "llama3", templates.LLAMA, _LLAMA, "", '{"name": "%n", "parameters": %a}', None, ""
    ),
    "mistral": Family(
        "mistral", templates.MISTRAL, _MISTRAL, "[TOOL_CALLS] [", _OBJECT, ", ", "]"
    ),
    "mistral, named": Family(
        "mistral", templates.MISTRAL_NAMED, _MISTRAL,
        "[TOOL_CALLS]", "%n[ARGS]%a", "[TOOL_CALLS]", "",
    ),
}  # fmt: skip


def write(folder: Path, family: Family) -> Path:
    """A checkpoint, as it would be pulled."""
    folder.mkdir(parents=True)
    for path in (_TINY / family.tiny).iterdir():
        if path.is_file() and path.suffix != ".gguf" and path.name != "reference.json":
            shutil.copy(path, folder)
    # Schemas spelt nearly letter by letter are long.
    _edit(folder / "config.json", lambda told: told | {"max_position_embeddings": 2048})
    _edit(folder / "tokenizer.json", lambda told: _put_tokens(told, family.tokens))
    _edit(folder / "tokenizer_config.json", lambda told: told | {"chat_template": family.template})
    return folder


def _edit(path: Path, change: Any) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def _put_tokens(told: dict[str, Any], tokens: Mapping[str, bool]) -> dict[str, Any]:
    """In place of the last merges, which no other builds on."""
    model = told["model"]
    words = sorted(model["vocab"], key=model["vocab"].__getitem__)
    gone = words[len(words) - len(tokens) :]
    for word, text in zip(gone, tokens, strict=True):
        id = model["vocab"].pop(word)
        model["merges"].pop()
        told["added_tokens"].append(
            {
                "id": id, "content": text, "special": tokens[text], "single_word": False,
                "lstrip": False, "rstrip": False, "normalized": False,
            }
        )  # fmt: skip
    return told


def local_model(home: Path, family: Family) -> LocalModel:
    """Pulled into a store."""
    source = write(home / "source" / "tiny-tools", family)
    store = ModelStore(home)
    card = pull(
        store, home, f"file:{source}", progress=lambda *_: None, accept_licence="made for tests"
    )
    return LocalModel(card, store.path(card))


class Speaker:
    """What the engine's process has of a model, but for its weights."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_folder(folder)
        self.template = ChatTemplate(
            self.tokenizer.chat_template,
            bos_token=self.tokenizer.text_of(self.tokenizer.bos),
            eos_token=self.tokenizer.text_of(self.tokenizer.eos),
        )
        self.tools = Tools(self.template, self.tokenizer)
        self._structure = Structure(self.tokenizer, self.tokenizer.size)

    def matcher(self, grammar: CallGrammar | None) -> Matcher:
        assert grammar is not None
        return self._structure.compile_calls(grammar)

    def spoken(self, text: str) -> list[int]:
        """As a model that was trained on it writes it: tokens where there are any."""
        return self.tokenizer.encode(text, parse_special=True, add_bos=False)

    def spelt(self, text: str) -> list[int]:
        """Without any special token."""
        marked = "\ufdd0".join(text)
        return self.tokenizer.encode(
            marked, parse_special=False, add_bos=False, restore={0xFDD0: None}
        )


@cache
def speaker(folder: Path, name: str) -> Speaker:
    """One for all tests of a session's folder."""
    found = folder / name
    return Speaker(found if found.exists() else write(found, FAMILIES[name]))
