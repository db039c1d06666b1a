"""Examples of a data set as the ids that a model is trained on, and which of them it learns.

The ids come from the functions that serving reads prompts with, so that what is learned is
what will be asked: the model's own template in its sandbox, its tokenizer, and nothing in a
message that becomes a control token. Learned is what the model itself will have to write:
each answer of the assistant with the token that ends it, and nothing else.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.core.errors import Code, UserError
from freehold.engines.openvino.prompt import Prompts
from freehold.engines.openvino.tokenizer import Tokenizer

Message = Mapping[str, Any]
_MAX_LINE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    """`learned` are ranges of `ids`, in order; the first begins behind the first id."""

    ids: tuple[int, ...]
    learned: tuple[tuple[int, int], ...]

    @property
    def targets(self) -> list[int]:
        """Places of the ids that are learned."""
        return [place for begin, end in self.learned for place in range(begin, end)]


@dataclass(frozen=True, slots=True)
class Pair:
    chosen: Row
    rejected: Row


@dataclass(frozen=True, slots=True)
class Read:
    """What came of a file: `too_long` and `unusable` examples were left out."""

    examples: tuple[tuple[Row, ...] | Pair, ...]
    too_long: int
    unusable: int

    @property
    def rows(self) -> list[Row]:
        return [row for each in self.examples if not isinstance(each, Pair) for row in each]

    @property
    def pairs(self) -> list[Pair]:
        return [each for each in self.examples if isinstance(each, Pair)]


class Encoder:
    """Of one model."""

    def __init__(self, tokenizer: Tokenizer, prompts: Prompts) -> None:
        self._tokenizer = tokenizer
        self._prompts = prompts

    def chat(self, example: Mapping[str, Any]) -> tuple[Row, ...]:
        """One row where each answer continues what was read before it, as in most templates;
        else one row an answer, each with the prompt that serving would make. Empty where the
        example has no answer that can be learned. Raises `UserError` where the template
        refuses the messages."""
        messages, tools = example["messages"], example.get("tools") or None
        answers = [at for at, each in enumerate(messages) if _is_learned(each, at)]
        if not answers:
            return ()
        if tools and self._is_asked_in_our_words(messages[: answers[0]], tools):
            return tuple(self._own_words(messages, at, tools) for at in answers)
        whole = self._ids(messages[: answers[-1] + 1], tools, asks=False)
        singles = tuple(self._single(messages, at, tools) for at in answers)
        if all(whole[: len(row.ids)] == row.ids for row in singles):
            return (Row(singles[-1].ids, tuple(row.learned[0] for row in singles)),)
        return singles

    def pair(self, example: Mapping[str, Any]) -> Pair | None:
        """None where both answers are the same to the model."""
        tools = example.get("tools") or None
        sides = []
        for name in ("chosen", "rejected"):
            messages = [*example["prompt"], *example[name]]
            if not example[name] or example[name][-1].get("role") != "assistant":
                return None
            last = len(messages) - 1
            if tools and self._is_asked_in_our_words(messages[:last], tools):
                sides.append(self._own_words(messages, last, tools))
            else:
                sides.append(self._single(messages, last, tools))
        return None if sides[0].ids == sides[1].ids else Pair(*sides)

    def _single(self, messages: Sequence[Message], at: int, tools: Any) -> Row:
        asked = self._ids(messages[:at], tools, asks=True)
        whole = self._ids(messages[: at + 1], tools, asks=False)
        answer = self._answer_in(whole, asked)
        if answer is not None:
            return Row(whole[: answer[1]], (answer,))
        if messages[at].get("tool_calls"):
            raise UserError(
                Code.INVALID_VALUE,
                "The model's chat template writes calls of tools otherwise in a history than it "
                "asks for them: train with examples without calls.",
            )
        return self._continued(asked, _text(messages[at].get("content")))

    def _own_words(self, messages: Sequence[Message], at: int, tools: Any) -> Row:
        """For a model that is told of tools in our words: its answers are JSON then."""
        calls = messages[at].get("tool_calls")
        if calls:
            function = calls[0]["function"]
            written: Any = {
                "name": function["name"],
                "arguments": json.loads(function["arguments"]),
            }
        else:
            written = {"reply": _text(messages[at].get("content"))}
        asked = self._ids(messages[:at], tools, asks=True)
        return self._continued(asked, json.dumps(written, ensure_ascii=False))

    def _continued(self, asked: tuple[int, ...], text: str) -> Row:
        answer = self._tokenizer.encode(text, parse_special=False, add_bos=False)
        if self._tokenizer.eos is not None:
            answer.append(self._tokenizer.eos)
        return Row((*asked, *answer), ((len(asked), len(asked) + len(answer)),))

    def _answer_in(self, whole: tuple[int, ...], asked: tuple[int, ...]) -> tuple[int, int] | None:
        """Behind `asked`, up to the first token that ends an answer."""
        begin = len(asked)
        if whole[:begin] != asked:
            return None
        for place in range(begin, len(whole)):
            if whole[place] in self._tokenizer.end_ids:
                return begin, place + 1
        return None

    def _ids(self, messages: Sequence[Message], tools: Any, *, asks: bool) -> tuple[int, ...]:
        body = {"messages": [dict(each) for each in messages], "tools": tools}
        return tuple(self._prompts.chat(body, add_generation_prompt=asks).tokens)

    def _is_asked_in_our_words(self, messages: Sequence[Message], tools: Any) -> bool:
        told = self._prompts.tools.told({"messages": list(messages), "tools": tools})
        return told.reader is not None


def read(
    path: Path,
    kind: str,
    encoder: Encoder,
    max_tokens: int,
    told: Callable[[int], None] = lambda done: None,
) -> Read:
    """The examples of a canonical file that fit `max_tokens`; `told` hears how many were
    read. Raises `FILE_INVALID` naming the line that is no example, and `INVALID_VALUE` when
    nothing, or less than half, can be used."""
    examples: list[tuple[Row, ...] | Pair] = []
    too_long = unusable = count = 0
    for count, example in enumerate(_lines(path), 1):
        made = _made(encoder, kind, example, count)
        if not made:
            unusable += 1
        elif _longest(made) > max_tokens:
            too_long += 1
        else:
            examples.append(made)
        told(count)
    _check_enough(len(examples), too_long, unusable, max_tokens, path.name)
    return Read(tuple(examples), too_long, unusable)


def _made(encoder: Encoder, kind: str, example: Any, line: int) -> tuple[Row, ...] | Pair | None:
    try:
        return encoder.chat(example) if kind == "chat" else encoder.pair(example)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        raise _no_example(line) from None
    except UserError as error:
        if error.code in (Code.UNSUPPORTED_ENDPOINT, Code.DIGEST_MISMATCH):
            raise
        return None


def _lines(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as file:
            yield from _parsed(iter(lambda: file.readline(_MAX_LINE_BYTES), b""))
    except FileNotFoundError:
        raise UserError(Code.NOT_FOUND, f"{path} is not there: add the data set again.") from None


def _parsed(lines: Iterable[bytes]) -> Iterator[Any]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError:
                raise _no_example(number) from None


def _no_example(line: int) -> UserError:
    return UserError(
        Code.FILE_INVALID,
        f"Line {line} of the data set is no example of its kind: add the data set again.",
    )


def _check_enough(used: int, too_long: int, unusable: int, max_tokens: int, name: str) -> None:
    whole = used + too_long + unusable
    if too_long * 2 > whole:
        raise UserError(
            Code.INVALID_VALUE,
            f"{too_long} of {whole} examples are longer than {max_tokens} tokens, more than half: "
            "allow more tokens, as far as the model's context goes, or shorten the examples.",
        )
    if unusable * 2 > whole or (whole and not used):
        raise UserError(
            Code.INVALID_VALUE,
            f"{unusable} of {whole} examples hold nothing that this model can learn, more than "
            "half: look at the data set with `freehold data check`.",
        )
    if not whole and name.startswith("train"):
        raise UserError(Code.INVALID_VALUE, "The data set has no examples to train on: add some.")


def _longest(made: tuple[Row, ...] | Pair) -> int:
    rows = (made.chosen, made.rejected) if isinstance(made, Pair) else made
    return max(len(row.ids) for row in rows)


def _is_learned(message: Message, at: int) -> bool:
    """OpenAI's format leaves an answer out of the training with the weight 0."""
    return at > 0 and message.get("role") == "assistant" and message.get("weight", 1) != 0


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content or ())
