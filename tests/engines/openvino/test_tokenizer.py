from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers

from freehold.catalog.store import ModelStore
from freehold.core.errors import Code, UserError
from freehold.engines.openvino.pretokenizers import PRETOKENIZERS
from freehold.engines.openvino.tokenizer import Tokenizer
from tests.engines.openvino import llama, vocabularies
from tests.engines.openvino.corpus import CONTROL, texts

_FAMILIES = (
    "default", "gpt-2", "smollm", "llama-bpe", "qwen2", "qwen35", "tekken", "gpt-4o",
    "deepseek-v3", "deepseek-coder", "falcon",
)  # fmt: skip


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Path]:
    def write(tokenizer: dict[str, Any]) -> Path:
        folder = tmp_path_factory.mktemp("gguf")
        return llama.write_model(folder / "m.gguf", tokenizer, len(tokenizer["ggml.tokens"]))

    return write


@pytest.fixture(scope="module")
def learnt() -> Library:
    return vocabularies.learnt()


@pytest.fixture(scope="module")
def small(write: Callable[[dict[str, Any]], Path], learnt: Library) -> Tokenizer:
    return Tokenizer.from_gguf(write(vocabularies.as_gguf(learnt)))


def _equals_llama(file: Path, seed: int) -> None:
    tokenizer = Tokenizer.from_gguf(file)
    with llama.serving(file) as engine:
        for text in texts(seed):
            for parse in (True, False):
                wanted = engine.tokens(text, parse_special=parse, add_bos=True)
                found = tokenizer.encode(text, parse_special=parse)
                made = [id for id in wanted if id in tokenizer.control_ids]
                if not parse and len(made) > tokenizer.add_bos + tokenizer.add_eos:
                    continue  # by merges, which never make a control token here
                assert found == wanted, text


def test_the_ids_of_the_real_model_are_those_of_llama_cpp(stored: Path, tmp_path: Path) -> None:
    store = ModelStore(stored)
    file = tmp_path / "real.gguf"
    file.hardlink_to(store.path(store.get("smollm2-135m-instruct")))
    _equals_llama(file, 1)


@pytest.mark.parametrize("pre", _FAMILIES)
def test_each_family_cuts_words_as_llama_cpp_does(
    pre: str, learnt: Library, write: Callable[[dict[str, Any]], Path]
) -> None:
    _equals_llama(write(vocabularies.as_gguf(learnt, pre)), 2)


def test_a_sentencepiece_vocabulary_gives_the_ids_of_llama_cpp(
    write: Callable[[dict[str, Any]], Path],
) -> None:
    _equals_llama(write(llama.sentencepiece("\n".join(texts(0, 20)))), 3)


def test_a_sentencepiece_vocabulary_may_want_no_space_and_no_beginning(
    write: Callable[[dict[str, Any]], Path],
) -> None:
    keys = llama.sentencepiece("\n".join(texts(0, 20)))
    keys |= {
        "ggml.add_space_prefix": False,
        "ggml.add_bos_token": False,
        "ggml.add_eos_token": True,
    }
    _equals_llama(write(keys), 4)


@pytest.mark.parametrize("text", CONTROL[:3])
def test_text_of_a_client_never_becomes_a_control_token(small: Tokenizer, text: str) -> None:
    assert len(small.encode(text, parse_special=True)) == 1
    ids = small.encode(f"a{text}b", parse_special=False)
    assert small.control_ids.isdisjoint(ids)
    assert b"".join(map(small.token_bytes, ids)).decode() == f"a{text}b"


def test_not_even_merges_lead_to_a_control_token(write: Callable[[dict[str, Any]], Path]) -> None:
    keys = llama.sentencepiece("a</s></s></s></s>b")
    assert {"</s", ">"} <= set(keys["ggml.tokens"])
    ids = Tokenizer.from_gguf(write(keys)).encode("</s>", parse_special=False, add_bos=False)
    assert 2 not in ids


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_bytes_of_the_ids_are_those_of_the_text(small: Tokenizer, text: str) -> None:
    for parse in (True, False):
        ids = small.encode(text, parse_special=parse)
        assert b"".join(map(small.token_bytes, ids)) == text.encode()


@pytest.mark.parametrize("strip", [{}, {"lstrip": True}, {"rstrip": True}])
def test_a_folder_gives_the_ids_of_the_library(strip: dict[str, bool], tmp_path: Path) -> None:
    library = vocabularies.learnt(**strip)
    tokenizer = Tokenizer.from_folder(vocabularies.save(library, tmp_path))
    for text in texts(5):
        assert tokenizer.encode(text, parse_special=True) == library.encode(text).ids
        ids = tokenizer.encode(text, parse_special=False)
        assert tokenizer.control_ids.isdisjoint(ids)


def _prepending(library: Library) -> None:
    prepend, replace = normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")
    library.normalizer = normalizers.Sequence([prepend, replace])


def _metaspace(scheme: str) -> Callable[[Library], None]:
    def change(library: Library) -> None:
        library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)

    return change


@pytest.mark.parametrize(
    "change", [_prepending, _metaspace("always"), _metaspace("first"), _metaspace("never")]
)
def test_a_folder_puts_spaces_where_the_library_does(
    change: Callable[[Library], None], tmp_path: Path
) -> None:
    keys = llama.sentencepiece("\n".join(texts(0, 20)))
    vocabulary = {text: id for id, text in enumerate(keys["ggml.tokens"])}
    merges = [
        (text[:at], text[at:])
        for text in list(vocabulary)[259:]
        for at in range(1, len(text))
        if text[:at] in vocabulary and text[at:] in vocabulary
    ]
    library = Library(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    library.add_special_tokens(["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    library.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    change(library)
    tokenizer = Tokenizer.from_folder(vocabularies.save(library, tmp_path))
    for text in [*texts(6), "a<|im_end|> b<|im_end|>c", " a", "▁a"]:
        assert tokenizer.encode(text, parse_special=True) == library.encode(text).ids, text
    ids = tokenizer.encode("añb", parse_special=True)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode().strip() == "añb"


def test_all_that_ends_an_answer_is_known(learnt: Library, tmp_path: Path) -> None:
    config = {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}}
    config |= {"add_bos_token": True, "chat_template": "old"}
    folder = vocabularies.save(
        learnt,
        tmp_path,
        tokenizer_config=orjson.dumps(config),
        generation_config=orjson.dumps({"eos_token_id": [2, 7]}),
    )
    (folder / "chat_template.jinja").write_text("new")
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.end_ids == {0, 2, 7}  # <|endoftext|> by its name
    assert (tokenizer.bos, tokenizer.eos) == (1, 2)
    assert tokenizer.encode("", parse_special=True) == [1]
    assert tokenizer.chat_template == "new"


def test_a_gguf_file_names_what_ends_a_turn_or_a_message(
    learnt: Library, write: Callable[[dict[str, Any]], Path]
) -> None:
    keys = vocabularies.as_gguf(learnt) | {"ggml.eot_token_id": 10, "ggml.eom_token_id": 11}
    tokenizer = Tokenizer.from_gguf(write(keys | {"chat_template": "{{ messages }}"}))
    assert tokenizer.end_ids == {0, 2, 10, 11}
    assert tokenizer.chat_template == "{{ messages }}"


def test_what_only_fills_up_the_head_has_no_bytes(small: Tokenizer) -> None:
    assert small.token_bytes(small.size) == small.token_bytes(-1) == b""
    assert small.shown_bytes(2) == b""
    assert small.token_bytes(2) == b"<|im_end|>"


def test_log_probabilities_tell_bytes_that_are_no_character(small: Tokenizer) -> None:
    (id,) = [id for id in range(small.size) if small.token_bytes(id) == b"\xe3"]
    assert small.logprob_token(id) == ("\ufffd", [0xE3])
    (word,) = small.encode(" world", parse_special=False)
    assert small.logprob_token(word) == (" world", list(b" world"))


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"ggml.pre": "invented"}, Code.FILE_REFUSED),
        ({"ggml.model": "t5"}, Code.FILE_REFUSED),
        ({"ggml.token_type": [1]}, Code.FILE_REFUSED),
        ({"ggml.scores": []}, None),
    ],
)
def test_an_unknown_vocabulary_is_refused(
    keys: dict[str, Any],
    code: Code | None,
    learnt: Library,
    write: Callable[[dict[str, Any]], Path],
) -> None:
    file = write({k: v for k, v in (vocabularies.as_gguf(learnt) | keys).items() if v != []})
    if code is None:
        assert Tokenizer.from_gguf(file).size
        return
    with pytest.raises(UserError) as refused:
        Tokenizer.from_gguf(file)
    assert refused.value.code is code


def test_a_file_cut_short_anywhere_is_refused(
    learnt: Library, write: Callable[[dict[str, Any]], Path], tmp_path: Path
) -> None:
    whole = write(vocabularies.as_gguf(learnt)).read_bytes()
    short = tmp_path / "short.gguf"
    for length in (1, 30, 100, 2000, 20_000):
        short.write_bytes(whole[:length])
        with pytest.raises(UserError) as refused:
            Tokenizer.from_gguf(short)
        assert refused.value.code is Code.FILE_INVALID


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"model": {"type": "BPE"}}', b'{"model": 1}', b"\xff"]
)
def test_a_damaged_tokenizer_json_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError) as refused:
        Tokenizer.from_folder(tmp_path)
    assert refused.value.code is Code.FILE_INVALID


def test_every_family_has_patterns_that_compile(
    learnt: Library, write: Callable[[dict[str, Any]], Path]
) -> None:
    for pre in PRETOKENIZERS:
        tokenizer = Tokenizer.from_gguf(write(vocabularies.as_gguf(learnt, pre)))
        ids = tokenizer.encode("don't 1234 x", parse_special=False, add_bos=False)
        assert b"".join(map(tokenizer.token_bytes, ids)) == b"don't 1234 x"
