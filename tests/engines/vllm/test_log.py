"""What is kept of vLLM's words once clients speak: where and when, nothing of theirs."""

import subprocess
import sys

import pytest

from freehold.engines.vllm.log import kept

_HEAD = b"(EngineCore pid=2826) WARNING 11-25 17:33:07 [cpu_worker.py:114]"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (_HEAD + b" libtcmalloc is not found", _HEAD),
        (
            b"ERROR 11-25 17:33:07 [serving.py:9] said secret",
            b"ERROR 11-25 17:33:07 [serving.py:9]",
        ),
        (b"(EngineCore pid=1) Traceback (most recent call last):",) * 2,
        (b'  File "/a/b.py", line 3, in answer',) * 2,
        (b"    prompt = 'secret'", None),
        (b"ValueError: secret", b"ValueError"),
        (b"vllm.exceptions.VLLMError: secret", b"vllm.exceptions.VLLMError"),
        (b"secret Error: of mine", None),
        (b"secret", None),
        (b"", None),
    ],
)
def test_a_line_is_kept_up_to_where_it_may_quote(line: bytes, expected: bytes | None) -> None:
    assert kept(line) == expected


def test_all_is_kept_until_clients_speak_and_children_s_words_are_cleaned_too() -> None:
    script = (
        "import os, subprocess, sys, time\n"
        "from freehold.engines.vllm import log\n"
        "clean = log.Clean()\n"
        "os.write(2, b'loading secret-free things\\n'); time.sleep(0.3)\n"
        "clean.begin()\n"
        "os.write(1, b'secret\\nINFO 11-25 17:00:00 [a.py:1] secret\\n')\n"
        "subprocess.run([sys.executable, '-c', 'print(\"secret\"); 1/0'])\n"
        "time.sleep(0.3)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert ended.stderr.splitlines() == [
        b"loading secret-free things",
        b"INFO 11-25 17:00:00 [a.py:1]",
        b"Traceback (most recent call last):",
        b'  File "<string>", line 1, in <module>',
        b"ZeroDivisionError",
    ]
    assert not ended.stdout
