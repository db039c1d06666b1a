"""What of llama.cpp's words may be in its log while it serves clients."""

import subprocess
import sys

import pytest

from freehold.engines import llama_cpp_log

_AT = "0.38.696.648"


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (f"{_AT} W srv    operator(): got exception: {{\"error\": \"CANARY\"}}",
         f"{_AT} W srv    operator(): got exception"),
        (f"{_AT} E srv    send_error: task id = 5, error: CANARY",
         f"{_AT} E srv    send_error: task id = 5, error"),
        (f"{_AT} W srv    unknown: CANARY", f"{_AT} W srv    unknown"),
        (f"{_AT} E CANARY", f"{_AT} E"),
        (f"{_AT} I slot      release: id  7 | task 0 | stop processing: n_tokens = 51",
         f"{_AT} I slot      release: id  7 | task 0 | stop processing: n_tokens = 51"),
        ('response-CANARY ::= "\\"CANARY\\"" space', None),
        ("parse: error parsing grammar: CANARY", None),
        ("WARNING: JSON schema conversion was incomplete: CANARY", None),
        ("CANARY", None),
        ("", None),
        ("/src/a.c:42: GGML_ASSERT(a == b) failed", "/src/a.c:42: GGML_ASSERT(a == b) failed"),
        ("CUDA error: CANARY", "CUDA error"),
        ("  what():  CANARY", None),
        ("ValueError: CANARY", "ValueError"),
        ('  File "worker.py", line 3, in main', '  File "worker.py", line 3, in main'),
        ("    raise ValueError('CANARY')", None),
    ],
)  # fmt: skip
def test_a_line_is_kept_up_to_where_a_quotation_can_begin(line: str, kept: str | None) -> None:
    assert llama_cpp_log.kept(line.encode()) == (None if kept is None else kept.encode())


def test_only_that_is_written_once_it_serves() -> None:
    script = f"""
import os, time
from freehold.engines import llama_cpp_log
os.write(2, b"loading CANARY-free\\n")
llama_cpp_log.clean()
os.write(1, b"{_AT} W srv x: got exception: CANARY\\nCANARY\\n{_AT} W y: half: CAN")
os.write(2, b"ARY\\n" + b"x" * 300_000 + b"\\n{_AT} I last: one\\n")
time.sleep(0.5)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert ended.stdout == b""
    assert ended.stderr.decode().splitlines() == [
        "loading CANARY-free", f"{_AT} W srv x: got exception", f"{_AT} W y: half",
        f"{_AT} I last",
    ]  # fmt: skip


def test_a_call_that_keeps_python_s_lock_may_say_more_than_the_pipe_holds() -> None:
    script = f"""
import ctypes, os, time
from freehold.engines import llama_cpp_log
llama_cpp_log.clean()
os.write(2, b"{_AT} I first: CANARY\\n")
with llama_cpp_log.set_aside():
    text = b"x" * 1_000_000 + b"\\n{_AT} W held: CANARY\\n"
    assert ctypes.PyDLL(None).write(2, text, len(text)) == len(text)
os.write(1, b"{_AT} I last: CANARY\\n")
time.sleep(0.5)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, timeout=60
    )
    assert ended.stdout == b""
    assert ended.stderr.decode().splitlines() == [
        f"{_AT} I first", f"{_AT} W held", f"{_AT} I last",
    ]  # fmt: skip
