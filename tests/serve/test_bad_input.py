"""Hostile and absurd requests: the right status, one sentence, and nothing changed."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import orjson
from sqlalchemy import Engine, event

from freehold.core.model import Task
from tests.harness import Running, running

# One a line.
_SQL = r"""
' OR '1'='1
' OR 1=1 --
" OR ""="
'; DROP TABLE api_keys; --
1; DELETE FROM requests
' UNION SELECT hash FROM api_keys --
admin'--
' AND sleep(5)='
') OR ('1'='1
\'; PRAGMA writable_schema=1; --
' || (SELECT value FROM facts) || '
%27%20OR%201=1
x' AND randomblob(1000000000) AND 'x'='x
0x27204f5220313d31
' GLOB '*
' LIKE '%
""".strip().split("\n")
_FORMATS = """
%s%s%s%s%n
%x%x%x%x
%(password)s
{0}
{}
{0.__class__.__mro__}
{{7*7}}
${7*7}
#{7*7}
${jndi:ldap://127.0.0.1/a}
{% print 1 %}
$(id)
`id`
; id
| id
&& id
{self.__init__.__globals__}
%d%d%d%d%d%d%d%d%d%d%d%d
%1000000000d
{:1000000000}
""".strip().split("\n")
_PATHS = r"""
../../../etc/passwd
..\..\windows\win.ini
/etc/passwd
file:///etc/passwd
....//....//etc/passwd
%2e%2e%2f%2e%2e%2f
/proc/self/environ
C:\boot.ini
.
..
fake-model/../fake-model
./fake-model
//fake-model
fake-model/
fake-model%00
""".strip().split("\n")
_TEXTS = """
null
None
undefined
true
NaN
-1
0
1e309
FAKE-MODEL
fake\u200b-model
f\u0430ke-model
fake-model\u202e
\u00e9\u00e9\u00e9\u00e9
\u5b57\u5b57\u5b57\u5b57
\U0001f600
<script>alert(1)</script>
<!--#exec cmd=id-->
<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b
fh_dev_0_0
fh_prod_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
key_01M89GW3VWJYHCAH5ZAQCA8TVF
Bearer
Bearer Bearer
Basic YTpi
eyJhbGciOiJub25lIn0.e30.
a,b
a;b
a=b&c=d
\\
""".strip().split("\n")
_LONG = [*("x" * size for size in (255, 256, 512, 513, 5000)), "sk-" + "0" * 48, "fake-model "]
PAYLOADS = [
    *_SQL, *_FORMATS, *_PATHS, *_TEXTS, *_LONG,
    *(f"fh_dev_{text}" for text in (*_SQL, *_FORMATS, *_PATHS)),
    *(f"fake-model{text}" for text in (*_SQL, *_FORMATS, *_PATHS)),
    *(f"{text}\x00" for text in (*_SQL, *_PATHS)),
    *(f"\ufeff{text}" for text in (*_SQL, *_FORMATS)),
]  # fmt: skip


class _Watched:
    """Everything that must be as it was, and every statement that a database got."""

    def __init__(self, world: Running) -> None:
        self.world = world
        self.statements: list[str] = []

    def state(self) -> tuple[Any, ...]:
        world = self.world
        store, home = world.gateway.store, world.home.path
        held = {
            str(path) for path in home.rglob("*")
            if not path.name.startswith("freehold.db") and path.parent.name != "journal"
        }  # fmt: skip
        routes = store.routes(world.tenant_id, "dev")  # type: ignore[arg-type]
        return world.records(), store.keys(world.tenant_id), routes, held

    def note(self, _connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        self.statements.append(statement)


@asynccontextmanager
async def unchanged(world: Running) -> AsyncIterator[_Watched]:
    await world.replica.ensure_ready(20)
    watched = _Watched(world)
    before = watched.state()
    event.listen(Engine, "before_cursor_execute", watched.note)
    try:
        yield watched
    finally:
        event.remove(Engine, "before_cursor_execute", watched.note)
    assert watched.state() == before


def _sentence(response: httpx2.Response, *statuses: int) -> str:
    """The message of a refusal, which is one line and tells nothing of the inside."""
    assert response.status_code in statuses, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    message = error["message"]
    assert isinstance(message, str)
    assert message.isprintable()
    assert len(message) < 500
    assert not any(inside in message for inside in ("Traceback", "sqlite3", "pydantic", "0x7f"))
    return message


def _fits_a_header(text: str) -> bool:
    return not any(c in text for c in "\x00\r\n") and text == text.strip()


async def test_payloads_in_place_of_a_key_open_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as world, httpx2.AsyncClient(base_url=world.url) as client:
        async with unchanged(world) as watched:
            sent = [text.encode() for text in PAYLOADS if _fits_a_header(text)]
            for payload, name in itertools.product(sent, (b"authorization", b"x-api-key")):
                value = b"Bearer " + payload if name == b"authorization" else payload
                response = await client.get("/v1/models", headers={name: value})
                _sentence(response, 401)
                assert response.json()["error"]["code"] == "invalid_api_key"
        _assert_bound(watched)
        assert len(sent) >= 200


async def test_payloads_in_place_of_a_name_find_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.http() as client:
        async with unchanged(world) as watched:
            for payload in PAYLOADS:
                for path, body in (
                    ("chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
                    ("responses", {"input": "x"}),
                ):
                    response = await client.post(f"/v1/{path}", json={"model": payload, **body})
                    _sentence(response, 400 if len(payload) > 256 else 404)
                place = quote(f"x{payload}", safe="")
                _sentence(await client.get(f"/v1/models/{place}"), 404)
                _sentence(await client.delete(f"/admin/v1/keys/{place}"), 404)
        _assert_bound(watched)


_HEADERS = (
    "x-tenant", "x-user", "x-forwarded-user", "x-freehold-conversation", "x-freehold-priority",
    "idempotency-key", "openai-organization",
)  # fmt: skip


async def test_payloads_in_queries_and_headers_change_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.http() as client:
        body = {"model": "nobody", "messages": [{"role": "user", "content": "x"}]}
        async with unchanged(world) as watched:
            for number, payload in enumerate(PAYLOADS):
                for query in (
                    () if number % 8 else ({"key": payload}, {"before": payload}, {"days": payload})
                ):
                    path = "requests" if "before" in query else "usage"
                    response = await client.get(f"/admin/v1/{path}", params=query)
                    if response.status_code == 200:
                        assert not any(response.json().values())
                    else:
                        _sentence(response, 400)
                if not _fits_a_header(payload):
                    continue
                for name in _HEADERS:
                    headers = {name: payload.encode()}
                    response = await client.post("/v1/chat/completions", json=body, headers=headers)
                    _sentence(response, 404, 400)
        _assert_bound(watched)


def _assert_bound(watched: _Watched) -> None:
    """Statements are those of the program: what callers sent is not in their text."""
    assert watched.statements
    text = "\n".join(set(watched.statements))
    assert not [payload for payload in PAYLOADS if len(payload) > 3 and payload in text]


def _chat(**fields: Any) -> bytes:
    whole = {"model": "fake-model", "messages": [{"role": "user", "content": "x"}], **fields}
    return orjson.dumps(whole)


def _raw(name: str, text: str) -> bytes:
    return _chat()[:-1] + f',"{name}":{text}}}'.encode()


NUMBERS = [
    (name, text)
    for name, texts in {
        "temperature": ("-0.1", "2.1", "1e999", "-1e999", "1e400", '"1"', "true", "[1]", "{}"),
        "top_p": ("0", "-1", "1.01", '"0.5"'),
        "max_tokens": ("0", "-1", "1.5", "1e30", "10000001", f"{2**64}", "9" * 400, '"5"'),
        "max_completion_tokens": ("0", "-9223372036854775808", "9223372036854775808"),
        "n": ("0", "-1", "17", "1000000000", "1.5", "false"),
        "seed": ("9223372036854775808", "-9223372036854775809", "0.5", '"a"'),
        "presence_penalty": ("2.5", "-3", '"0"'),
        "frequency_penalty": ("1e308", "-1e308"),
        "top_logprobs": ("-1", "21", "true"),
        "logit_bias": ('{"1": 101}', '{"1": "a"}', '{"1": null}', "[1]", "5"),
        "stop": ("5", "[]x", '[""]', '""', '["a","b","c","d","e"]', "[null]", "[[]]", "{}"),
        "stream": ('"yes"', "1", "[]"),
        "messages": ("null", "{}", '"hi"', "[null]", "[[]]", '["hi"]', "[{}]", "5"),
        "tools": ("{}", "[1]", '[{"type":"function"}]', '"x"'),
        "response_format": ('"json"', '{"type":"xml"}', "[]"),
        "user": ("5", "{}", "[]"),
    }.items()
    for text in texts
]  # fmt: skip


async def test_absurd_values_are_refused_by_name(tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.http() as client, unchanged(world):
        for name, text in NUMBERS:
            response = await client.post("/v1/chat/completions", content=_raw(name, text))
            message = _sentence(response, 400)
            code = response.json()["error"]["code"]
            assert code in ("invalid_value", "invalid_json"), (name, text, message)
            if code == "invalid_value":
                assert response.json()["error"]["param"].startswith(name), (name, text)


BROKEN = {
    "NaN": _raw("temperature", "NaN"),
    "Infinity": _raw("temperature", "-Infinity"),
    "a comment": _chat()[:-1] + b",/* x */}",
    "a comma too many": _chat()[:-1] + b",}",
    "single quotes": _chat().replace(b'"', b"'"),
    "two documents": _chat() * 2,
    "cut in the middle": _chat()[:-20],
    "a byte order mark": b"\xef\xbb\xbf" + _chat(),
    "UTF-16": _chat().decode().encode("utf-16"),
    "latin-1 in a text": _chat(user="x").replace(b'"user":"x"', b'"user":"\xe9"'),
    "an overlong slash": _chat(user="x").replace(b'"user":"x"', b'"user":"\xc0\xaf"'),
    "a raw surrogate": _chat(user="x").replace(b'"user":"x"', b'"user":"\xed\xa0\x80"'),
    "an escaped surrogate": _chat(user="x").replace(b'"user":"x"', b'"user":"\\ud800"'),
    "a raw control character": _chat(user="x").replace(b'"user":"x"', b'"user":"\n"'),
    "a number with a leading zero": _raw("seed", "007"),
    "hexadecimal": _raw("seed", "0x10"),
    "deep lists": b"[" * 200_000 + b"]" * 200_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a form": b"model=fake-model&messages=hi",
    "a text": b'"hello"',
    "null": b"null",
    "a number": b"12",
    "zeros": bytes(1000),
}


async def test_what_is_no_json_object_in_utf_8_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.http() as client, unchanged(world):
        for what, content in BROKEN.items():
            for path in ("/v1/chat/completions", "/v1/responses", "/admin/v1/keys"):
                response = await client.post(path, content=content)
                _sentence(response, 400, 413)
                code = response.json()["error"]["code"]
                if path != "/admin/v1/keys":
                    assert code == "invalid_json", (what, path)


MESSAGES = {
    "no messages": ([], "invalid_value"),
    "ten thousand and one": ([{"role": "user", "content": "x"}] * 10_001, "invalid_value"),
    "an unknown role": ([{"role": "root", "content": "x"}], "invalid_value"),
    "no role": ([{"content": "x"}], "invalid_value"),
    "a role in capitals": ([{"role": "USER", "content": "x"}], "invalid_value"),
    "no content": ([{"role": "user"}], "invalid_value"),
    "no parts": ([{"role": "user", "content": []}], "invalid_value"),
    "a null as content": ([{"role": "user", "content": None}], "invalid_value"),
    "an unknown part": ([{"role": "user", "content": [{"type": "video"}]}], "invalid_value"),
    "an answer of nothing": ([{"role": "assistant"}], "invalid_value"),
    "a tool's answer to nothing": ([{"role": "tool", "content": "x"}], "invalid_value"),
    "a field too many": ([{"role": "user", "content": "x", "weight": 1}], "unknown_parameter"),
    "an image": (
        [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        ]}],
        "unsupported_parameter",
    ),
    "a sound": (
        [{"role": "user", "content": [
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
        ]}],
        "unsupported_parameter",
    ),
}  # fmt: skip


async def test_messages_that_cannot_be_are_refused_by_their_place(tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.http() as client, unchanged(world):
        for what, (messages, code) in MESSAGES.items():
            response = await client.post("/v1/chat/completions", content=_chat(messages=messages))
            _sentence(response, 400)
            error = response.json()["error"]
            assert error["code"] == code, what
            assert error["param"].startswith("messages"), what
        many = await client.post("/v1/chat/completions", content=_chat(stop=["x"] * 10_000))
        assert "at most 4" in _sentence(many, 400)


async def test_a_message_longer_than_the_context_is_refused_and_bills_nothing(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world, world.http() as client:
        for content in ("word " * 5_000, "word " * 1_000_000):
            messages = [{"role": "user", "content": content}]
            response = await client.post("/v1/chat/completions", content=_chat(messages=messages))
            assert "shorten it" in _sentence(response, 400)
            assert response.json()["error"]["code"] == "context_length_exceeded"
        rows = await world.settled(2)
        assert {row["outcome"] for row in rows} == {"refused"}
        assert {row["tokens_in"] for row in rows} == {0}
        assert (await world.chat("")).status_code == 200


KEYS = [
    {}, {"name": ""}, {"name": "x" * 129}, {"name": "a\nb"}, {"name": "a\x00b"}, {"name": 5},
    {"name": None}, {"name": ["x"]}, {"name": "x", "scopes": []}, {"name": "x", "scopes": ["root"]},
    {"name": "x", "scopes": "infer"}, {"name": "x", "scopes": [["infer"]]},
    {"name": "x", "environment": "moon"}, {"name": "x", "environment": 1},
    {"name": "x", "models": "all"}, {"name": "x", "models": [5]},
    {"name": "x", "models": ["m"] * 1001},
    {"name": "x", "expires_in_days": 0}, {"name": "x", "expires_in_days": -1},
    {"name": "x", "expires_in_days": 1.5}, {"name": "x", "expires_in_days": "5"},
    {"name": "x", "expires_in_days": True}, {"name": "x", "expires_in_days": 10**19},
    {"name": "x", "sha256": "zz"}, {"name": "x", "sha256": "a" * 63},
    {"name": "x", "sha256": "a" * 65}, {"name": "x", "sha256": 0},
    {"name": "x", "tenant_id": "ten_other"}, {"name": "x", "id": "key_mine"},
    {"name": "x", "hash": "00"}, {"name": "x", "is_admin": True},
]  # fmt: skip


async def test_keys_that_cannot_be_are_not_made(tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.http() as client, unchanged(world):
        for body in KEYS:
            message = _sentence(await client.post("/admin/v1/keys", json=body), 400)
            assert message.endswith(".")
        huge = orjson.dumps({"name": "x", "models": ["m" * 1000] * 100})
        _sentence(await client.post("/admin/v1/keys", content=huge), 413)


async def test_what_cannot_be_embedded_changes_nothing(tmp_path: Path) -> None:
    bad: list[Any] = [
        None, "", [], [""], ["a", None], ["a", 1], [1, "a"], [-1], [2**31], [1.5], [True], [[]],
        [[1], []], [[1], "a"], {}, 5, {"text": "a"}, ["a"] * 2049, [["a"]],
    ]  # fmt: skip
    async with (
        running(tmp_path, task=Task.EMBEDDINGS) as world,
        world.http() as client,
        unchanged(world),
    ):
        for given in bad:
            body = {"model": "fake-model", "input": given}
            response = await client.post("/v1/embeddings", json=body)
            _sentence(response, 400)
            assert response.json()["error"]["param"].startswith("input"), given


_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
_INNER = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
NO_HTTP = {
    "noise": bytes(range(1, 256)) * 4 + b"\r\n\r\n",
    "a greeting of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a zero in the path": b"GET /\x00 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    "a zero in a header": _HEAD + b"x: a\x00b\r\n\r\n",
    "a space before a colon": _HEAD + b"content-length : 5\r\n\r\nhello",
    "a header without a colon": _HEAD + b"nonsense\r\n\r\n",
    "a negative length": _HEAD + b"content-length: -1\r\n\r\n",
    "a length in words": _HEAD + b"content-length: five\r\n\r\nhello",
    "a length beyond all bounds": _HEAD + b"content-length: " + b"9" * 40 + b"\r\n\r\n",
    "a chunk of no size": _HEAD + b"transfer-encoding: chunked\r\n\r\nZZ\r\n",
    # The ways to smuggle one request inside another.
    "a length and chunks": _HEAD
    + b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + _INNER,
    "two lengths": _HEAD
    + b"content-length: 0\r\ncontent-length: 43\r\n\r\n" + _INNER,
}  # fmt: skip


async def test_what_is_no_http_is_refused_and_ends_its_connection_only(tmp_path: Path) -> None:
    async with running(tmp_path) as world, unchanged(world):
        host, port = world.url.removeprefix("http://").split(":")
        for what, content in NO_HTTP.items():
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(content)
            answer = await asyncio.wait_for(reader.read(), 10)
            assert answer.startswith(b"HTTP/1.1 400 "), what
            assert answer.count(b"HTTP/1.1 ") == 1, what
            assert b"\r\nx-freehold-request-id: req_" in answer, what
            error = orjson.loads(answer.partition(b"\r\n\r\n")[2])["error"]
            assert error["message"] == "The request is not valid HTTP/1.1: correct it.", what
            writer.close()
        async with world.http() as client:
            assert (await client.get("/v1/models")).status_code == 200
