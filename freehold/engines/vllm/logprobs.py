"""vLLM's log probabilities of completions, as OpenAI shapes them.

It counts offsets from the answer's beginning, and gives the numbers of tokens whose text
it keeps back, or cuts off, because of a stop sequence.
"""

from typing import Any

_LISTS = ("tokens", "token_logprobs", "top_logprobs")


class TextLogprobs:
    """Offsets counted from the beginning of the prompt. Numbers wait for their text, and
    are left out when it never comes."""

    def __init__(self, prompt: str) -> None:
        self._offset = len(prompt)
        self._text = ""
        self._done = 0  # characters whose numbers were told
        self._waiting: list[tuple[Any, ...]] = []

    def chunk(self, chunk: dict[str, Any]) -> dict[str, Any]:
        for choice in chunk["choices"]:
            found = choice.get("logprobs")
            if found:
                self._waiting += zip(*(found[name] for name in _LISTS), strict=True)
            self._text += choice.get("text") or ""
            choice["logprobs"] = self._told() if self._waiting else None
        return chunk

    def _told(self) -> dict[str, list[Any]] | None:
        lists: dict[str, list[Any]] = {name: [] for name in (*_LISTS, "text_offset")}
        while self._waiting and self._done + bool(self._waiting[0][0]) <= len(self._text):
            token, number, others = self._waiting.pop(0)
            shown = token[: len(self._text) - self._done]
            if shown != token:
                others = {shown if name == token else name: n for name, n in others.items()}
            for name, value in zip(_LISTS, (shown, number, others), strict=True):
                lists[name].append(value)
            lists["text_offset"].append(self._offset + self._done)
            self._done += len(shown)
        return lists if lists["tokens"] else None
