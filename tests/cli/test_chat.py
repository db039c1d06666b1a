"""`freehold chat`: one message or a conversation with a served model."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from freehold.config.home import Home, write_private
from freehold.engines.fake import tokens_for
from tests import upstream as far
from tests.cli.conftest import Run
from tests.harness import running


def _answer(*contents: str, count: int = 16) -> str:
    """What the fake engine says to these messages."""
    return "".join(tokens_for("\n".join(contents), count))


def test_one_message_gets_its_answer(online: Run) -> None:
    ended = online("chat", "hello there")
    assert ended.exit_code == 0, ended.output
    assert ended.stdout == _answer("hello there") + "\n"


def test_machines_get_the_answer_the_model_and_the_usage(online: Run) -> None:
    ended = online("chat", "hello", "--json", "--max-tokens", "3", "--model", "tiny")
    said = json.loads(ended.stdout)
    assert set(said) == {"model", "content", "usage"}
    assert (said["model"], said["content"]) == ("tiny", _answer("hello", count=3))
    assert said["usage"]["completion_tokens"] == 3


def test_a_system_message_goes_first(online: Run) -> None:
    ended = online("chat", "hello", "--system", "Be brief.")
    assert ended.stdout == _answer("Be brief.", "hello") + "\n"


def test_a_conversation_remembers_what_was_said_until_its_end(online: Run) -> None:
    ended = online("chat", "--system", "S", input="first\n\n   \nsecond\n")
    assert ended.exit_code == 0, ended.output
    one = _answer("S", "first")
    two = _answer("S", "first", one, "second")
    assert ended.stdout.index(one) < ended.stdout.index(two)
    assert ended.stdout.count("you:") == 5, "empty lines ask for nothing"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("hi", "--model", "nobody"), "model_not_found"),
        (("[[crash 3]] of chat",), "engine_failed"),
        (("[[garbage not-json]]",), "engine_failed"),
        (("word " * 5000,), "context_length_exceeded"),
    ],
)
def test_what_fails_is_told_in_the_gateways_own_sentence(
    online: Run, words: tuple[str, ...], code: str
) -> None:
    asked = online("chat", *words, "--json")
    assert asked.exit_code == 1
    error = json.loads(asked.stdout)["error"]
    assert error["code"] == code
    assert error["message"].endswith(".")


def test_wrong_use_ends_with_two_and_no_gateway_with_one(offline: Run) -> None:
    assert offline("chat", "hi", "--max-tokens", "0").exit_code == 2
    assert offline("chat", "hi", "there").exit_code == 2
    ended = offline("chat", "hi")
    assert ended.exit_code == 1
    assert "freehold up" in ended.stderr


async def test_a_models_words_cannot_steer_the_terminal(
    tmp_path: Path, commands: Callable[[Path], Run]
) -> None:
    async def hostile(asked: far.Asked) -> None:
        said = "a\x1b]0;title\x07b\x1b[2Jc\u009b31md\u202ee\rf\n\tg [red]h[/x]"
        await asked.say(far.STREAM + far.token(said) + far.end(1))

    home = Home(tmp_path)
    async with (
        far.upstream(hostile) as upstream,
        running(tmp_path, upstreams=[far.settings(upstream, tmp_path)]) as world,
    ):
        with home.lock():
            write_private(home.admin_key, world.key.encode())
            record = {"url": world.url, "pid": os.getpid()}
            write_private(home.gateway_record, json.dumps(record).encode())
            run = commands(tmp_path)
            ended = await asyncio.to_thread(run, "chat", "hi", "--model", "far")
            exact = await asyncio.to_thread(run, "chat", "hi", "--model", "far", "--json")
    mark = "\ufffd"
    assert ended.stdout == (
        f"a{mark}]0;title{mark}b{mark}[2Jc{mark}31md{mark}e{mark}f\n\tg [red]h[/x]\n"
    )
    assert json.loads(exact.stdout)["content"].startswith("a\x1b]0;")
    assert "\x1b" not in exact.stdout, "JSON escapes it"
