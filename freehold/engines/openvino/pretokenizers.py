"""How texts are cut into words before byte-level BPE, by the name in a GGUF file's
`tokenizer.ggml.pre`. The patterns are those of llama.cpp's llama-vocab.cpp, applied one
after the other to what the one before left; where it approximates a model's own pattern
(tekken, gpt-4o) we do as it does, so that both engines see the same tokens.

The two libraries know different versions of Unicode: letters of scripts that were added
since version 15 may be cut differently.
"""

from dataclasses import dataclass

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SHORT = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_REST_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_SHORT}|{_LETTERS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_SHORT}|{_LETTERS}|\p{{N}}|{_REST}"
_UPPER, _LOWER = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"
_CASED = rf"{_UPPER}*{_LOWER}+", rf"{_UPPER}+{_LOWER}*"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_TEKKEN = "|".join(_LEAD + cased for cased in _CASED)
_GPT4O = "|".join(f"{_LEAD}{cased}{_SHORT}?" for cased in _CASED)
_CJK = "[一-龥぀-ゟ゠-ヿ]+"
_DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class Pretokenizer:
    """`whole_words`: a word that is a token is not built from merges. `add_bos`: unless
    the file says otherwise."""

    patterns: tuple[str, ...]
    whole_words: bool = False
    add_bos: bool = False


_DEFAULT = Pretokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))
_KINDS: tuple[tuple[str, Pretokenizer], ...] = (
    ("default", _DEFAULT),
    (
        "gpt-2 phi-2 gigachat a.x-4.0 mellum modern-bert mpt olmo jais trillion exaone4",
        Pretokenizer((_GPT2,)),
    ),
    (
        "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
        Pretokenizer((r"\p{N}", _GPT2)),
    ),
    (
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2",
        Pretokenizer((_LLAMA3,), whole_words=True, add_bos=True),
    ),
    ("dbrx smaug-bpe glm4 chatglm-bpe", Pretokenizer((_LLAMA3,))),
    (
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
        Pretokenizer((_QWEN2,)),
    ),
    (
        "qwen35",
        Pretokenizer(
            (
                rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
                r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            )
        ),
    ),
    (
        "tekken",
        Pretokenizer((rf"{_TEKKEN}|\p{{N}}|{_REST_SLASH}",), whole_words=True, add_bos=True),
    ),
    (
        "gpt-4o llama4 kanana2",
        Pretokenizer((rf"{_GPT4O}|\p{{N}}{{1,3}}|{_REST_SLASH}",)),
    ),
    ("deepseek-v3 hunyuan-dense", Pretokenizer((r"\p{N}{1,3}", _CJK, _DEEPSEEK3))),
    (
        "deepseek-coder",
        Pretokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")),
    ),
    ("falcon", Pretokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"))),
)
PRETOKENIZERS = {name: found for names, found in _KINDS for name in names.split()}
