"""The vocabulary of a Hugging Face folder: tokenizer.json, and what the files beside it
say of ends, beginnings and the chat template."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from tokenizers import Tokenizer

from freehold.core.errors import Code, UserError
from freehold.engines.openvino.tokenizer import END_TEXTS, SpacePrefix, Special, Vocabulary
from freehold.engines.openvino.tokenizer_gguf import from_byte_alphabet

_MAX_BYTES = 256 * 1024 * 1024


def read(folder: Path) -> Vocabulary:
    """Raises `FILE_INVALID` for damaged files, `FILE_REFUSED` for a kind of vocabulary
    that is not known here."""
    told = _json(folder / "tokenizer.json")
    if told is None:
        raise _invalid()
    config = _json(folder / "tokenizer_config.json") or {}
    generation = _json(folder / "generation_config.json") or {}
    try:
        return _vocabulary(told, config, generation, _template(folder, config))
    except (AttributeError, LookupError, TypeError, ValueError) as why:
        raise _invalid() from why


def _vocabulary(
    told: dict[str, Any], config: Mapping[str, Any], generation: Mapping[str, Any], template: Any
) -> Vocabulary:
    if told["model"].get("type", "BPE") != "BPE":
        raise UserError(
            Code.FILE_REFUSED, "This model's vocabulary is no BPE: use llama.cpp and a GGUF of it."
        )
    added = told.get("added_tokens") or []
    specials = [_special(token) for token in added]
    id_of = {special.text: special.id for special in specials}
    add_bos = config.get("add_bos_token", _begins_with_bos(told, config))
    prefix = _without_prefix(told)
    pieces = _pieces(told, specials)
    library = _library(told, specials)
    bos, eos = id_of.get(_text(config, "bos_token")), id_of.get(_text(config, "eos_token"))
    ends = generation.get("eos_token_id")
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    ends |= {special.id for special in specials if special.text in END_TEXTS}
    ends |= set() if eos is None else {eos}
    return Vocabulary(
        pieces=pieces,
        specials=specials,
        ends=frozenset(ends),
        bos=bos,
        eos=eos,
        add_bos=bool(add_bos),
        add_eos=bool(config.get("add_eos_token", False)),
        prefix=prefix,
        chat_template=template,
        library=library,
    )


def _special(token: Mapping[str, Any]) -> Special:
    text = token["content"]
    return Special(
        text,
        token["id"],
        control=bool(token.get("special")) or text in END_TEXTS,
        lstrip=bool(token.get("lstrip")),
        rstrip=bool(token.get("rstrip")),
    )


def _pieces(told: Mapping[str, Any], specials: list[Special]) -> list[bytes]:
    is_byte_level = any(part.get("type") == "ByteLevel" for part in _parts(told, "decoder"))
    vocabulary = told["model"]["vocab"]
    size = 1 + max([*vocabulary.values(), *(special.id for special in specials)])
    if size > 4_000_000:
        raise ValueError("ids too large")
    pieces = [b""] * size
    for text, id in vocabulary.items():
        pieces[id] = from_byte_alphabet(text) if is_byte_level else _piece(text)
    for special in specials:
        pieces[special.id] = special.text.encode()
    return pieces


def _piece(text: str) -> bytes:
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes((int(text[3:5], 16),))
    return text.replace("▁", " ").encode()


def _library(told: dict[str, Any], specials: list[Special]) -> Any:
    """Without the special tokens: neither as such, nor as words that merges lead to."""
    model = told["model"]
    gone = {special.text for special in specials if special.control} - {model.get("unk_token")}
    kept = {text: id for text, id in model["vocab"].items() if text not in gone}
    merges = [merge for merge in model["merges"] if gone.isdisjoint(_joined(merge))]
    plain = told | {"model": model | {"vocab": kept, "merges": merges}, "added_tokens": []}
    plain |= {"post_processor": None, "truncation": None, "padding": None}
    # The library raises nothing more exact than Exception.
    try:
        return Tokenizer.from_str(orjson.dumps(plain).decode())
    except Exception as why:
        raise ValueError("not a tokenizer") from why


def _joined(merge: str | list[str]) -> tuple[str, str, str]:
    """What a merge joins, and what becomes of it."""
    first, second = merge.split(" ", 1) if isinstance(merge, str) else merge
    return first, second, first + second


def _without_prefix(told: dict[str, Any]) -> SpacePrefix:
    """Takes what puts a space before texts out of the description: where a text begins
    is known only here."""
    prefix = SpacePrefix.NONE
    normalizer = told.get("normalizer") or {}
    if normalizer.get("type") == "Prepend":
        prefix, told["normalizer"] = SpacePrefix.EACH, None
    inner = normalizer.get("normalizers") or []
    kept = [part for part in inner if part.get("type") != "Prepend"]
    if len(kept) < len(inner):
        prefix, told["normalizer"] = SpacePrefix.EACH, normalizer | {"normalizers": kept}
    for part in _parts(told, "pre_tokenizer"):
        if part.get("type") == "Metaspace":
            scheme = part.get("prepend_scheme", "always")
            part["prepend_scheme"] = "never"
            part.pop("add_prefix_space", None)
            prefix = {
                "always": SpacePrefix.EACH_WITHOUT,
                "first": SpacePrefix.FIRST_WITHOUT,
            }.get(scheme, prefix)
    return prefix


def _begins_with_bos(told: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    for part in _parts(told, "post_processor"):
        for piece in (part.get("single") or ())[:1]:
            if piece.get("SpecialToken", {}).get("id") == _text(config, "bos_token"):
                return True
    return False


def _parts(told: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """The parts of a pipeline, also of one that holds others."""
    waiting = [told.get(name)]
    while waiting:
        part = waiting.pop(0)
        if part:
            yield part
            for inner in ("normalizers", "pretokenizers", "processors", "decoders"):
                waiting += part.get(inner) or ()


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text("utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):  # several by name
        found = next((one["template"] for one in found if one.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def _text(config: Mapping[str, Any], name: str) -> str:
    found = config.get(name)
    if isinstance(found, Mapping):
        found = found.get("content")
    return found if isinstance(found, str) else ""


def _json(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise _invalid()
        found = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as why:
        raise _invalid() from why
    if not isinstance(found, dict):
        raise _invalid()
    return found


def _invalid() -> UserError:
    return UserError(
        Code.FILE_INVALID,
        "The model's tokenizer.json, or a file beside it, cannot be read: pull the model again.",
    )
