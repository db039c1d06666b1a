"""llama.cpp's log probabilities, as OpenAI shapes them.

It answers completions in the shape of chat, and when it is asked for no alternatives it
gives twenty, or no numbers at all. So it is asked for one at least, and what is too
much is cut here.
"""

from typing import Any

from freehold.core.engine import CHAT
from freehold.engines.reading import Reader


def prepared(endpoint: str, body: dict[str, Any]) -> tuple[dict[str, Any], Reader | None]:
    """The body as llama.cpp must get it, and what reads its answer; None without need."""
    if "logprobs" not in body and "top_logprobs" not in body:
        return body, None
    if endpoint != CHAT:
        wanted = body["logprobs"]
        reader = TextLogprobs(body["prompt"], wanted).chunk
        return {**body, "logprobs": max(wanted, 1)}, reader
    plain = {name: value for name, value in body.items() if name != "top_logprobs"}
    if not body.get("logprobs"):
        return plain, None  # it refuses even `top_logprobs: 0` then
    wanted = body.get("top_logprobs", 0)
    return {**plain, "top_logprobs": max(wanted, 1)}, ChatLogprobs(wanted).chunk


class ChatLogprobs:
    """Cuts the alternatives to the number that was asked for."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted

    def chunk(self, chunk: dict[str, Any]) -> dict[str, Any]:
        for choice in chunk["choices"]:
            for entry in _entries(choice):
                entry["top_logprobs"] = entry["top_logprobs"][: self._wanted]
        return chunk


class TextLogprobs:
    """Chat's entries as the four lists of completions, offsets counted from the beginning
    of the prompt. llama.cpp keeps back text that may begin a stop sequence: the numbers
    of its tokens wait for it, and are left out when it never comes."""

    def __init__(self, prompt: str, wanted: int) -> None:
        self._offset = len(prompt)
        self._wanted = wanted
        self._waiting: list[dict[str, Any]] = []

    def chunk(self, chunk: dict[str, Any]) -> dict[str, Any]:
        for choice in chunk["choices"]:
            self._waiting += _entries(choice)
            choice["logprobs"] = None
            if choice["text"] and self._waiting:
                choice["logprobs"] = self._lists(choice["text"])
        return chunk

    def _lists(self, text: str) -> dict[str, list[Any]]:
        entries, self._waiting = self._waiting, []
        lists: dict[str, list[Any]] = {
            "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [],
        }  # fmt: skip
        sent, done = text.encode(), b""
        for entry, piece in zip(entries, _pieces(entries, sent), strict=True):
            if done == sent:
                break  # what follows was cut off by a stop sequence
            piece = piece[: len(sent) - len(done)]
            token = _name(piece)
            lists["tokens"].append(token)
            lists["token_logprobs"].append(entry["logprob"])
            lists["top_logprobs"].append(self._likeliest(entry, token))
            lists["text_offset"].append(self._offset + len(done.decode(errors="ignore")))
            done += piece
        self._offset += len(text)
        return lists

    def _likeliest(self, entry: dict[str, Any], token: str) -> dict[str, float]:
        """As many as were asked for, and the token that was taken in any case."""
        found = {
            _name(bytes(other["bytes"])): other["logprob"]
            for other in entry["top_logprobs"][: self._wanted]
            if other["id"] != entry["id"]
        }
        found[token] = entry["logprob"]
        return dict(sorted(found.items(), key=lambda pair: pair[1], reverse=True))


def _entries(choice: dict[str, Any]) -> list[dict[str, Any]]:
    return (choice.get("logprobs") or {}).get("content") or []


def _pieces(entries: list[dict[str, Any]], text: bytes) -> list[bytes]:
    """Which part of `text` is whose. An entry says what was sent with its token, which
    is nothing while text is kept back; then the tokens' own texts are taken, where the
    engine names them among the likeliest."""
    sent = [bytes(entry["bytes"]) for entry in entries]
    if all(sent):
        return sent
    own = [
        next((bytes(t["bytes"]) for t in entry["top_logprobs"] if t["id"] == entry["id"]), b"")
        for entry in entries
    ]
    return own if all(own) and b"".join(own).startswith(text) else sent


def _name(piece: bytes) -> str:
    """OpenAI's own way to write what is only a part of a character."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
