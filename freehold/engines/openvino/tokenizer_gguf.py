"""The vocabulary of a GGUF file: byte-level BPE (`gpt2`) and SentencePiece BPE (`llama`).

SentencePiece BPE differs from llama.cpp in two points: merges never lead to a control
token, and where two ways to cut a token apply at once (in runs of one character), the
one that is listed first wins, as in Transformers, and not the leftmost.

Read with a few calls of struct over a mapped file: the `gguf` package makes several
arrays for each text, which takes seconds for a large vocabulary.
"""

import mmap
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from freehold.core.errors import Code, UserError
from freehold.engines.openvino.pretokenizers import PRETOKENIZERS, Pretokenizer
from freehold.engines.openvino.tokenizer import END_TEXTS, SpacePrefix, Special, Vocabulary

_SCALARS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "?",
            10: "<Q", 11: "<q", 12: "<d"}  # fmt: skip
_STRING, _ARRAY = 8, 9
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6
# Control tokens whatever their type says, as in llama.cpp; the second set ends answers.
_FILL_IN = frozenset(
    {
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
    }
)  # fmt: skip
_FILL_IN_ENDS = frozenset(
    {
        "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>",
        "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>",
    }
)  # fmt: skip


def read(path: Path) -> Vocabulary:
    """Raises `FILE_INVALID` for a damaged header, `FILE_REFUSED` for a kind of vocabulary
    that is not known here."""
    try:
        values = _values(path)
        texts = values["tokenizer.ggml.tokens"]
        model = values["tokenizer.ggml.model"]
    except (struct.error, ValueError, KeyError, IndexError, OverflowError) as why:
        raise UserError(
            Code.FILE_INVALID, f"{path.name} holds no vocabulary that can be read: pull it again."
        ) from why
    if model == "gpt2":
        return _byte_level(values, texts)
    if model == "llama":
        return _sentencepiece(values, texts)
    raise _refused(f"its tokenizer is {str(model)[:40]!r}")


def _byte_level(values: Mapping[str, Any], texts: Sequence[str]) -> Vocabulary:
    name = values.get("tokenizer.ggml.pre", "default")
    pretokenizer = PRETOKENIZERS.get(name)
    if pretokenizer is None:
        raise _refused(f"its pre-tokenizer is {str(name)[:40]!r}")
    kinds = _kinds(values, texts)
    known = _mergeable(texts, kinds)
    pairs = (merge.partition(" ") for merge in values.get("tokenizer.ggml.merges", ()))
    merges = [(a, b) for a, _, b in pairs if a in known and b in known and a + b in known]
    library = Tokenizer(models.BPE(known, merges, ignore_merges=pretokenizer.whole_words))
    library.pre_tokenizer = _words(pretokenizer)
    pieces = [
        from_byte_alphabet(text) if kind == _NORMAL else _piece(text, kind)
        for text, kind in zip(texts, kinds, strict=True)
    ]
    return _vocabulary(
        values, texts, kinds, pieces, library, 11, 11, pretokenizer.add_bos, SpacePrefix.NONE
    )


def _words(pretokenizer: Pretokenizer) -> Any:
    splits = [pre_tokenizers.Split(Regex(found), "isolated") for found in pretokenizer.patterns]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*splits, byte_level])


def _sentencepiece(values: Mapping[str, Any], texts: Sequence[str]) -> Vocabulary:
    kinds = _kinds(values, texts)
    known = _mergeable(texts, kinds)
    merges = _merges(known, values.get("tokenizer.ggml.scores", ()), texts, kinds)
    library = Tokenizer(models.BPE(known, merges, byte_fallback=True))
    library.normalizer = normalizers.Replace(" ", "▁")
    pieces = [_piece(text, kind) for text, kind in zip(texts, kinds, strict=True)]
    wanted = values.get("tokenizer.ggml.add_space_prefix", True)
    prefix = SpacePrefix.EACH if wanted else SpacePrefix.NONE
    return _vocabulary(values, texts, kinds, pieces, library, 1, 2, True, prefix)


def _merges(
    known: Mapping[str, int], scores: Sequence[float], texts: Sequence[str], kinds: Sequence[int]
) -> list[tuple[str, str]]:
    """SentencePiece joins what makes the token with the best score: each way to cut a
    token in two is a merge, the best token's first."""
    joined = [id for id, kind in enumerate(kinds) if kind != _BYTE and texts[id] in known]
    if scores:
        joined.sort(key=lambda id: -scores[id])
    return [
        (text[:at], text[at:])
        for text in (texts[id] for id in joined)
        for at in range(1, len(text))
        if text[:at] in known and text[at:] in known
    ]


def _vocabulary(
    values: Mapping[str, Any],
    texts: Sequence[str],
    kinds: Sequence[int],
    pieces: Sequence[bytes],
    library: Any,
    bos: int,
    eos: int,
    add_bos: bool,
    prefix: SpacePrefix,
) -> Vocabulary:
    def id_of(role: str, default: int | None) -> int | None:
        found = values.get(f"tokenizer.ggml.{role}_token_id", default)
        return found if isinstance(found, int) and 0 <= found < len(texts) else None

    end_id = id_of("eos", eos)
    ends = {found for role in ("eot", "eom") if (found := id_of(role, None)) is not None}
    ends |= {id for id, text in enumerate(texts) if text in END_TEXTS or text in _FILL_IN_ENDS}
    if end_id is not None:
        ends.add(end_id)
    if {"<|return|>", "<|call|>"} <= {texts[id] for id in ends}:  # there it ends a part only
        ends = {id for id in ends if texts[id] != "<|end|>"}
    return Vocabulary(
        pieces=pieces,
        specials=[
            Special(text, id, control=kind != _USER_DEFINED)
            for id, (text, kind) in enumerate(zip(texts, kinds, strict=True))
            if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
        ],
        ends=frozenset(ends),
        bos=id_of("bos", bos),
        eos=end_id,
        add_bos=bool(values.get("tokenizer.ggml.add_bos_token", add_bos)),
        add_eos=bool(values.get("tokenizer.ggml.add_eos_token", False)),
        prefix=prefix,
        chat_template=values.get("tokenizer.chat_template"),
        library=library,
    )


def _kinds(values: Mapping[str, Any], texts: Sequence[str]) -> Sequence[int]:
    found = values.get("tokenizer.ggml.token_type")
    kinds = list(found) if found else [_NORMAL] * len(texts)
    if len(kinds) != len(texts):
        raise _refused("its tokens and their types are not equally many")
    for id, text in enumerate(texts):
        if text in END_TEXTS or text in _FILL_IN or text in _FILL_IN_ENDS:
            kinds[id] = _CONTROL
    return kinds


def _mergeable(texts: Sequence[str], kinds: Sequence[int]) -> dict[str, int]:
    """The tokens that text may become by merges: no control token is among them."""
    return {
        text: id
        for id, (text, kind) in enumerate(zip(texts, kinds, strict=True))
        if kind not in (_CONTROL, _UNKNOWN)
    }


def _piece(text: str, kind: int) -> bytes:
    if kind == _BYTE:
        return bytes((int(text[3:5], 16),))
    if kind in (_CONTROL, _UNKNOWN, _USER_DEFINED):
        return text.encode()
    return text.replace("▁", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """GPT-2 writes each byte as a character that can be seen."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {
        chr(256 + at): byte for at, byte in enumerate(unseen)
    }


_BYTE_OF = _byte_alphabet().__getitem__


def from_byte_alphabet(text: str) -> bytes:
    try:
        return bytes(map(_BYTE_OF, text))
    except KeyError:
        return text.encode()


def _refused(why: str) -> UserError:
    return UserError(
        Code.FILE_REFUSED, f"This model's vocabulary is not known here: {why}. Use llama.cpp."
    )


def _values(path: Path) -> dict[str, Any]:
    """The keys of the header that belong to the tokenizer."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        magic, _, _, count = struct.unpack_from("<4sIQQ", mapped)
        if magic != b"GGUF":
            raise ValueError("not GGUF")
        at, values = 24, {}
        for _ in range(count):
            key, at = _text(mapped, at)
            (kind,) = struct.unpack_from("<I", mapped, at)
            value, at = _value(mapped, at + 4, kind)
            if key.startswith("tokenizer."):
                values[key] = value
        return values


def _value(mapped: mmap.mmap, at: int, kind: int) -> tuple[Any, int]:
    if kind == _STRING:
        return _text(mapped, at)
    if kind != _ARRAY:
        layout = _SCALARS[kind]
        return struct.unpack_from(layout, mapped, at)[0], at + struct.calcsize(layout)
    kind, count = struct.unpack_from("<IQ", mapped, at)
    at += 12
    if kind == _STRING:
        return _texts(mapped, at, count)
    layout = _SCALARS[kind]
    end = at + count * struct.calcsize(layout)
    if end > len(mapped):
        raise ValueError("cut short")
    return struct.unpack_from(f"<{count}{layout[-1]}", mapped, at), end


def _text(mapped: mmap.mmap, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", mapped, at)
    end = at + 8 + length
    if end > len(mapped):
        raise ValueError("cut short")
    return mapped[at + 8 : end].decode(), end


def _texts(mapped: mmap.mmap, at: int, count: int) -> tuple[list[str], int]:
    length_of = struct.Struct("<Q").unpack_from
    texts = []
    for _ in range(count):
        end = at + 8 + length_of(mapped, at)[0]
        texts.append(mapped[at + 8 : end].decode())
        at = end
    return texts, at
