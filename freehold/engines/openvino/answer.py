"""One answer on its way out: from tokens to chunks in OpenAI's shape."""

import time
from collections.abc import Mapping
from typing import Any

from freehold.core.engine import CHAT
from freehold.engines.logprobs import TextLogprobs
from freehold.engines.openvino.call_reader import CallReader
from freehold.engines.openvino.detokenize import Detokenizer, StopStrings
from freehold.engines.openvino.sample import Drawn
from freehold.engines.openvino.tokenizer import Tokenizer


class Answer:
    """`reason` is set once it ended. `prompt` is the text that completions count their
    offsets from, `alternatives` how many likely tokens are told beside each taken, None
    for no log probabilities; `adapter` the digest that the slots say they computed with.
    """

    def __init__(
        self,
        endpoint: str,
        tokenizer: Tokenizer,
        stops: list[str],
        base: str,
        *,
        prompt: str = "",
        alternatives: int | None = None,
        calls: CallReader | None = None,
        markers: Mapping[int, str] | None = None,
    ) -> None:
        self._is_chat = endpoint == CHAT
        self._tokenizer = tokenizer
        self._text = Detokenizer(tokenizer)
        self._stops = StopStrings(stops)
        self._calls = calls
        self._markers = markers or {}
        self._has_logprobs = alternatives is not None
        self._text_logprobs = TextLogprobs(prompt, alternatives or 0)
        self._told: list[Drawn] = []  # whose text is held back
        self._is_first = True
        self._head = {
            "id": "engine",
            "object": "chat.completion.chunk" if self._is_chat else "text_completion",
            "created": int(time.time()),
            "model": base,
        }
        self.adapter: str | None = None
        self.reason: str | None = None
        self.tokens = 0

    def take(self, drawn: Drawn, reason: str | None) -> dict[str, Any] | None:
        """The chunk that a token makes; None while all of its text is held back. With a
        `reason` the answer ends, and what was held back comes. The token that ends the
        model's turn (`end`) has no text."""
        self.tokens += 1
        if self._has_logprobs and reason != "end":
            self._told.append(drawn)
        text = "" if reason == "end" else self._stops.push(self._said(drawn.token))
        if reason is not None and self._stops.found is None:
            text += self._stops.push(self._said_last())
            text += self._stops.finish()
            self.reason = "stop" if reason == "end" else reason
        if self._stops.found is not None:
            self.reason = "stop"
        deltas = self._calls.take_deltas() if self._calls else []
        if self.reason == "stop" and self._calls is not None and self._calls.has_called:
            self.reason = "tool_calls"
        if not (text or deltas) and self.reason is None and not self._is_first:
            return None
        return self._chunk(text, deltas)

    def usage(self, prompt_tokens: int, cached_tokens: int) -> dict[str, Any]:
        """The last chunk."""
        counts = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": prompt_tokens + self.tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        }
        return {**self._head, "adapter": self.adapter, "choices": [], "usage": counts}

    def _said(self, token: int) -> str:
        """The text that a token adds. What opens a call is known by its token, where there
        is one: text that is spelt like it opens none. Stop sequences end text, not calls."""
        if self._calls is None:
            return self._text.push([token])
        marker = self._markers.get(token)
        if marker is None:
            return self._calls.push(self._text.push([token]))
        before = self._calls.push(self._text.finish())
        return before + self._calls.push(marker, is_marker=True)

    def _said_last(self) -> str:
        rest = self._text.finish()
        return rest if self._calls is None else self._calls.push(rest) + self._calls.finish()

    def _chunk(self, text: str, deltas: list[dict[str, Any]]) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.reason}
        if self._is_chat:
            delta: dict[str, Any] = {"role": "assistant"} if self._is_first else {}
            if text:
                delta["content"] = text
            if deltas:
                delta["tool_calls"] = deltas
            choice["delta"] = delta
        else:
            choice["text"] = text
        self._is_first = False
        chunk = {**self._head, "adapter": self.adapter, "choices": [choice]}
        if self._has_logprobs:
            choice["logprobs"] = self._logprobs()
            return chunk if self._is_chat else self._text_logprobs.chunk(chunk)
        return chunk

    def _logprobs(self) -> dict[str, Any] | None:
        told, self._told = self._told, []
        content = [
            {
                **self._entry(drawn.token, drawn.logprob or 0.0),
                "top_logprobs": [self._entry(*likely) for likely in drawn.likeliest],
            }
            for drawn in told
        ]
        return {"content": content, "refusal": None} if content else None

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        name, raw = self._tokenizer.logprob_token(token)
        entry = {"token": name, "logprob": logprob, "bytes": raw}
        return entry if self._is_chat else {**entry, "id": token}
