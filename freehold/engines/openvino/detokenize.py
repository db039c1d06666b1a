"""Text out of token ids, as soon as it is certain: characters are never cut in two, and
what may still begin a stop sequence waits."""

import codecs
from collections.abc import Iterable, Sequence

from freehold.engines.openvino.tokenizer import Tokenizer


class Detokenizer:
    """The text of ids that come one after the other. What it gave, joined, is at each
    moment a prefix of the whole decoded at once; after `finish` it is the whole.
    Control tokens have no text. Bytes that are no UTF-8 become U+FFFD."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def push(self, ids: Iterable[int]) -> str:
        shown = self._tokenizer.shown_bytes
        return self._decode(b"".join(map(shown, ids)))

    def finish(self) -> str:
        """What an unfinished character left, as U+FFFD."""
        return self._decode(b"", True)


class StopStrings:
    """Cuts a text that comes in pieces before the first stop sequence that gets complete,
    the longest if several end there. How the text is cut into pieces changes nothing.

    Text is held back only while it can still begin a stop; `finish` gives it when the
    answer ends otherwise. Nothing comes after a stop was `found`.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._matchers = [_Matcher(stop) for stop in dict.fromkeys(stops) if stop]
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        if self.found is not None or not self._matchers:
            return "" if self.found is not None else text
        idle = not self._held
        matchers = [m for m in self._matchers if not idle or m.stop[0] in text]
        if not matchers:
            return text
        pending = self._held + text
        for at, character in enumerate(text, len(self._held) + 1):
            ended = [m.stop for m in matchers if m.reads(character)]
            if ended:
                self.found = max(ended, key=len)
                self._held = ""
                return pending[: at - len(self.found)]
        keep = max(m.length for m in matchers)
        self._held = pending[len(pending) - keep :]
        return pending[: len(pending) - keep]

    def finish(self) -> str:
        held, self._held = self._held, ""
        return held


class _Matcher:
    """How much of one stop the text read so far ends with (Knuth, Morris, Pratt)."""

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.length = 0
        self._borders = _borders(stop)

    def reads(self, character: str) -> bool:
        """Whether the stop ends with this character."""
        stop, length = self.stop, self.length
        while length and stop[length] != character:
            length = self._borders[length - 1]
        if stop[length] == character:
            length += 1
        ended = length == len(stop)
        self.length = self._borders[-1] if ended else length
        return ended


def _borders(text: str) -> Sequence[int]:
    """Of each prefix, the length of its longest proper prefix that is also its suffix."""
    borders = [0] * len(text)
    length = 0
    for at in range(1, len(text)):
        while length and text[at] != text[length]:
            length = borders[length - 1]
        if text[at] == text[length]:
            length += 1
        borders[at] = length
    return borders
