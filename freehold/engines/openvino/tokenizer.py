"""Text to token ids and back to bytes, as the model was trained: equal to llama.cpp's,
token for token, for a GGUF file, and to Hugging Face's for a folder with tokenizer.json.

Special tokens are looked for here, and only what lies between them goes to the
`tokenizers` library, which does not know them. So no text of a client can become a
control token unless the caller asks for it, not even by merges.
"""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

# What ends an answer in the families that we serve, whatever a file says of its types;
# llama.cpp goes by the same names.
END_TEXTS = frozenset(
    {
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>",
        "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
        "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<｜end▁of▁sentence｜>",
    }
)  # fmt: skip


class SpacePrefix(Enum):
    """Where a space is put before text, as SentencePiece models want it."""

    NONE = "none"
    EACH = "each"  # at the start and behind each special token
    EACH_WITHOUT = "each_without"  # the same, unless the text begins with one
    FIRST_WITHOUT = "first_without"  # only at the start, unless the text begins with one


@dataclass(frozen=True, slots=True)
class Special:
    """A token that is found as a whole. `control`: only where the caller asks for it, and
    without text in an answer; the others (`<think>` often) are ordinary words."""

    text: str
    id: int
    control: bool
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What is read from a model's files. `pieces`: the bytes of each id. `library`: a
    `tokenizers.Tokenizer` for text between special tokens."""

    pieces: Sequence[bytes]
    specials: Sequence[Special]
    ends: frozenset[int]
    bos: int | None
    eos: int | None
    add_bos: bool
    add_eos: bool
    prefix: SpacePrefix
    chat_template: str | None
    library: Any


class Tokenizer:
    """Safe to use from several threads at once."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._pieces = vocabulary.pieces
        self._library = vocabulary.library
        # Words that one tenant sent would be kept, and read sooner in another's prompt.
        self._library.model._resize_cache(0)
        self._prefix = vocabulary.prefix
        # The longest first, as llama.cpp looks for them.
        self._specials = sorted(vocabulary.specials, key=lambda s: -len(s.text.encode()))
        self._words = [special for special in self._specials if not special.control]
        self.control_ids = frozenset(s.id for s in vocabulary.specials if s.control)
        self.control_texts = tuple(s.text for s in self._specials if s.control)
        self.special_ids = frozenset(s.id for s in vocabulary.specials)
        self.word_ids = self.special_ids - self.control_ids - vocabulary.ends
        self._ids = {s.text: s.id for s in vocabulary.specials}
        self.end_ids = vocabulary.ends
        self.bos, self.eos = vocabulary.bos, vocabulary.eos
        self.add_bos, self.add_eos = vocabulary.add_bos, vocabulary.add_eos
        self.chat_template = vocabulary.chat_template

    @classmethod
    def from_gguf(cls, path: Path) -> "Tokenizer":
        from freehold.engines.openvino import tokenizer_gguf

        return cls(tokenizer_gguf.read(path))

    @classmethod
    def from_folder(cls, path: Path) -> "Tokenizer":
        from freehold.engines.openvino import tokenizer_hf

        return cls(tokenizer_hf.read(path))

    @classmethod
    def of_model(cls, files: Mapping[str, Path]) -> "Tokenizer":
        """From a stored model's files, given by their names."""
        for name, path in files.items():
            if name.endswith(".gguf"):
                return cls.from_gguf(path)
        with tempfile.TemporaryDirectory(prefix="freehold-") as folder:
            for name, path in files.items():
                if name.endswith((".json", ".jinja", ".model")):
                    (Path(folder) / name).symlink_to(path)
            return cls.from_folder(Path(folder))

    @property
    def size(self) -> int:
        """How many ids have a token; a model's head may be wider."""
        return len(self._pieces)

    def encode(
        self,
        text: str,
        *,
        parse_special: bool,
        add_bos: bool | None = None,
        restore: Mapping[int, str | None] | None = None,
    ) -> list[int]:
        """`add_bos` (and the end token, where a model adds one): None as the model wants
        it. `restore` is applied, as `str.translate` does, to the text between special
        tokens, after these were found."""
        wanted = self.add_bos if add_bos is None else add_bos
        ids = [self.bos] if wanted and self.bos is not None else []
        fragments = self._fragments(text, parse_special)
        texts = self._texts(fragments, restore)
        encoded = iter(self._library.encode_batch_fast(texts, add_special_tokens=False))
        for fragment in fragments:
            if isinstance(fragment, Special):
                ids.append(fragment.id)
            else:
                ids += next(encoded).ids
        if self.add_eos and add_bos is None and self.eos is not None:
            ids.append(self.eos)
        return ids

    def special_id(self, text: str) -> int | None:
        """Of the token that is found as a whole, if there is one."""
        return self._ids.get(text)

    def special_tokens(self, text: str, looked_for: Collection[str]) -> list[int]:
        """Those of `looked_for` that `text` holds when special tokens are parsed."""
        found = self._fragments(text, parse_special=True)
        return [f.id for f in found if isinstance(f, Special) and f.text in looked_for]

    def token_bytes(self, id: int) -> bytes:
        """The bytes of a token, those of its name for a special one; none for an id that
        only fills up the model's head."""
        return self._pieces[id] if 0 <= id < len(self._pieces) else b""

    def shown_bytes(self, id: int) -> bytes:
        """The bytes that a token adds to an answer: none for control tokens."""
        return b"" if id in self.control_ids else self.token_bytes(id)

    def logprob_token(self, id: int) -> tuple[str, list[int]]:
        """`token` and `bytes` of OpenAI's logprobs: bytes that are no whole character are
        U+FFFD in the first and exact in the second."""
        found = self.token_bytes(id)
        return found.decode("utf-8", "replace"), list(found)

    def text_of(self, id: int | None) -> str:
        """What a template writes for a token, `bos_token` for example."""
        return "" if id is None else self.token_bytes(id).decode("utf-8", "replace")

    def _fragments(self, text: str, parse_special: bool) -> list[str | Special]:
        fragments: list[str | Special] = [text] if text else []
        for special in self._specials if parse_special else self._words:
            if special.text in text:
                fragments = [
                    part
                    for fragment in fragments
                    for part in (
                        _split(fragment, special) if isinstance(fragment, str) else [fragment]
                    )
                ]
        return fragments

    def _texts(
        self, fragments: Sequence[str | Special], restore: Mapping[int, str | None] | None
    ) -> list[str]:
        texts, behind_special = [], True
        for at, fragment in enumerate(fragments):
            if isinstance(fragment, str):
                found = fragment.translate(restore) if restore else fragment
                first = at == 0
                texts.append(" " + found if self._prefixed(found, first, behind_special) else found)
            behind_special = isinstance(fragment, Special)
        return texts

    def _prefixed(self, text: str, first: bool, behind_special: bool) -> bool:
        if self._prefix is SpacePrefix.EACH:
            return behind_special
        if self._prefix is SpacePrefix.EACH_WITHOUT:
            return behind_special and not text.startswith((" ", "▁"))
        if self._prefix is SpacePrefix.FIRST_WITHOUT:
            return first and not text.startswith((" ", "▁"))
        return False


def _split(text: str, special: Special) -> list[str | Special]:
    parts: list[str | Special] = []
    pieces = text.split(special.text)
    for at, piece in enumerate(pieces):
        if at and special.rstrip:
            piece = piece.lstrip()
        if at < len(pieces) - 1 and special.lstrip:
            piece = piece.rstrip()
        if at:
            parts.append(special)
        if piece:
            parts.append(piece)
    return parts
