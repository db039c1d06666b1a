"""Reads calls out of an answer in the model's own form, while it arrives.

Text goes on as it comes, but for what may still begin a call. A call is told once its
function is certain, and its arguments as they come. What only looks like a call, or is cut
off before its function is certain, is text: nothing is dropped but the form itself.
"""

import secrets
from collections.abc import Collection
from enum import Enum
from typing import Any

from freehold.engines.openvino.call_form import CallForm


class _State(Enum):
    TEXT = "before any call"
    HEAD = "a call was opened"
    ARGUMENTS = "in a call's arguments"
    TAIL = "behind a call"
    REST = "no call can come any more"


class CallReader:
    """`names` are the functions that can be called. Where `opens_by_token`, only a marker
    opens a call and never a text. `deltas` are those of calls that wait to be taken."""

    def __init__(self, form: CallForm, names: Collection[str], opens_by_token: bool) -> None:
        self._form = form
        self._opens_by_token = opens_by_token
        self._begins = {f"{head}{name}{form.neck}{{": name for head in form.heads for name in names}
        self._firsts = {form.lead + begin: name for begin, name in self._begins.items()}
        self._nexts = {
            f"{form.after}{form.between}{begin}": name
            for begin, name in self._begins.items()
            if form.between is not None
        }
        self._state = _State.TEXT
        self._held = ""  # of what it is not yet known what it is
        self._arguments = _Object()
        self._calls = 0
        self._deltas: dict[int, dict[str, Any]] = {}

    @property
    def has_called(self) -> bool:
        return self._calls > 0

    def take_deltas(self) -> list[dict[str, Any]]:
        deltas, self._deltas = self._deltas, {}
        return list(deltas.values())

    def push(self, text: str, is_marker: bool = False) -> str:
        """What of it, and of what was held, is text for the client."""
        if self._state is _State.TEXT and is_marker and text == self._form.opener:
            said = self._held.rstrip()  # the space before a call belongs to the form
            self._held, self._state = "", _State.HEAD
            return said
        if is_marker and text == self._form.silent:
            return ""
        said, self._held = "", self._held + text
        while True:
            before = self._state
            said += self._step()
            if self._state is before:
                return said

    def finish(self) -> str:
        """What was held, when nothing more comes."""
        held, self._held = self._held, ""
        if self._state is _State.HEAD:
            return self._form.opener + held
        if self._state is _State.TAIL:
            return self._behind(held)
        return held

    def _step(self) -> str:
        if self._state is _State.TEXT:
            return self._text() if self._form.opener else self._start()
        if self._state is _State.HEAD:
            return self._head(self._firsts, self._form.opener)
        if self._state is _State.ARGUMENTS:
            return self._argument_text()
        if self._state is _State.TAIL:
            return self._head(self._nexts, "")
        held, self._held = self._held, ""
        return held

    def _text(self) -> str:
        opener = self._form.opener
        if not self._opens_by_token and opener in self._held:
            said, _, self._held = self._held.partition(opener)
            self._state = _State.HEAD
            return said.rstrip()
        kept = 0 if self._opens_by_token else _overlap(self._held, opener)
        said = self._held[: len(self._held) - kept].rstrip()
        self._held = self._held[len(said) :]
        return said

    def _start(self) -> str:
        """An answer that calls from its first character on, or not at all."""
        if self._held.startswith(self._form.heads):
            self._state = _State.HEAD
        elif not any(begin.startswith(self._held) for begin in self._form.heads):
            self._state = _State.REST
        return ""

    def _head(self, begins: dict[str, str], opener: str) -> str:
        for begin, name in begins.items():
            if self._held.startswith(begin):
                self._held = self._held[len(begin) - 1 :]
                self._begin_call(name)
                return ""
        whole = self._form.after + self._form.end
        possible = [*begins, whole] if self._state is _State.TAIL else begins
        if any(begin.startswith(self._held) for begin in possible):
            return ""
        held, self._held = self._held, ""
        said = opener + held if self._state is _State.HEAD else self._behind(held)
        self._state = _State.REST
        return said

    def _begin_call(self, name: str) -> None:
        self._state, self._arguments = _State.ARGUMENTS, _Object()
        function = {"name": name, "arguments": ""}
        self._deltas[self._calls] = {
            "index": self._calls,
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": function,
        }
        self._calls += 1

    def _argument_text(self) -> str:
        length = self._arguments.read(self._held)
        piece, self._held = self._held[:length], self._held[length:]
        if piece:
            index = self._calls - 1
            delta = self._deltas.setdefault(index, {"index": index, "function": {"arguments": ""}})
            delta["function"]["arguments"] += piece
        if self._arguments.is_whole:
            self._state = _State.TAIL
        return ""

    def _behind(self, held: str) -> str:
        """What comes behind a call and belongs to no form."""
        whole = self._form.after + self._form.end
        if whole.startswith(held):
            return ""
        return held.removeprefix(whole).lstrip()


class _Object:
    """How far one JSON object goes."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._is_escaped = self.is_whole = False

    def read(self, text: str) -> int:
        """How many of these characters belong to it."""
        for place, character in enumerate(text):
            if self._in_string:
                if self._is_escaped:
                    self._is_escaped = False
                elif character == "\\":
                    self._is_escaped = True
                elif character == '"':
                    self._in_string = False
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.is_whole = True
                    return place + 1
        return len(text)


def _overlap(text: str, opener: str) -> int:
    """How many characters at the end of a text may begin the opener."""
    for length in range(min(len(text), len(opener) - 1), 0, -1):
        if text.endswith(opener[:length]):
            return length
    return 0
