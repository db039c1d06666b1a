"""What tenants send leaves nothing in the tokenizer, neither to be kept nor to be found
sooner by another tenant who sends the same."""

import json
import subprocess
import sys

import pytest

from tests.engines.tiny import FOLDER

_WORDS, _LETTERS = 5000, 200
_LITTLE = _WORDS * _LETTERS * 4  # bytes: less than the library keeps for so many letters
# A process that tells by how much it grows with words that were never there before: with a
# tokenizer as it is made, and with one that may remember them all.
_CHILD = """
import json, random, string, sys
from pathlib import Path
import psutil
from freehold.engines.openvino.tokenizer import Tokenizer

path, words, letters = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
chance, process = random.Random(6), psutil.Process()

def growth(tokenizer):
    tokenizer.encode("".join(chance.choices(string.ascii_lowercase, k=2000)), parse_special=False)
    before = process.memory_info().rss
    for _ in range(words):
        text = "".join(chance.choices(string.ascii_lowercase, k=letters))
        tokenizer.encode(text, parse_special=False)
    return process.memory_info().rss - before

made = Tokenizer.from_gguf if path.suffix == ".gguf" else Tokenizer.from_folder
found = [growth(made(path))]
remembering = made(path)
remembering._library.model._resize_cache(words)
print(json.dumps([*found, growth(remembering)]))
"""


@pytest.mark.parametrize("name", ["qwen3", "qwen3/qwen3-BF16.gguf"])
def test_words_that_were_sent_are_not_kept(name: str) -> None:
    command = [sys.executable, "-c", _CHILD, str(FOLDER / name), str(_WORDS), str(_LETTERS)]
    ended = subprocess.run(command, capture_output=True, check=True)
    as_it_is, remembering = json.loads(ended.stdout)
    assert as_it_is < _LITTLE
    assert remembering > _LITTLE, "the test sees what is kept"
