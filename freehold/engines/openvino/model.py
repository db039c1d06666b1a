"""What the process has loaded: weights, vocabulary, template, adapters, cache."""

import argparse
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from freehold.core.binding import Priority
from freehold.core.engine import CHAT, AdapterFiles
from freehold.core.errors import Code, UserError
from freehold.core.ids import new_id
from freehold.engines.openvino.adapters import Adapter, Shelf
from freehold.engines.openvino.answer import Answer
from freehold.engines.openvino.blocks import BlockPool
from freehold.engines.openvino.prepared import prepare
from freehold.engines.openvino.prompt import Prompt, Prompts, template_of
from freehold.engines.openvino.quantize import Format
from freehold.engines.openvino.request import Request
from freehold.engines.openvino.runner import BLOCK, Options, Runner
from freehold.engines.openvino.sample import Sampler, SamplingParams
from freehold.engines.openvino.scheduler import Limits, Scheduler
from freehold.engines.openvino.sequence import Sequence as Tokens
from freehold.engines.openvino.slots import Slots
from freehold.engines.openvino.structure import Matcher, Structure
from freehold.engines.openvino.tokenizer import Tokenizer
from freehold.engines.openvino.tools import Told

_CHECKED_AT_ONCE = 16
_SPOILT = frozenset({Code.FILE_INVALID, Code.FILE_REFUSED, Code.DIGEST_MISMATCH})


class Model:
    def __init__(self, options: argparse.Namespace, files: Mapping[str, Path]) -> None:
        self.digest: str = options.digest
        self._context: int = options.context
        self._tokenizer = Tokenizer.of_model(files)
        self._prompts = self._prompts_of(options)
        prepared = prepare(options.digest, files, _format(options.weights), options.cache)
        exact = options.weights == "float32"
        how = Options(
            threads=options.threads,
            kv_cache="f32" if exact else options.kv_cache,
            exact=exact,
            factors="f32" if exact else "bf16",
        )
        self.runner = Runner(prepared, how, options.kv_cache_bytes)
        if self.runner.blocks * BLOCK < self._context:
            raise UserError(
                Code.CONFIG_INVALID,
                "engines.openvino.kv_cache_bytes does not hold one context: raise it to "
                f"{int(self.runner.bytes_per_token * self._context)} or lower context_length.",
            )
        self.scheduler = Scheduler(
            BlockPool(self.runner.blocks, BLOCK), Limits(max_running=options.streams)
        )
        self.slots = Slots(prepared.shape, how.factors, options.streams)
        self._structure = Structure(self._tokenizer, prepared.shape.vocab)
        self._doubted: set[str] = set()  # adapters whose files were not what they should be
        self._shelf = Shelf(prepared.shape, how.factors, options.adapter_bytes, options.max_rank)

    def prompt(self, endpoint: str, body: dict[str, Any]) -> Prompt:
        """Raises `UserError` where the template refuses the messages."""
        if endpoint != CHAT:
            tokens = self._tokenizer.encode(body["prompt"], parse_special=False)
            return Prompt(tokens, body["prompt"])
        if self._prompts is None:
            raise UserError(
                Code.UNSUPPORTED_ENDPOINT,
                "This model has no chat template: use completions, or pull a chat model.",
            )
        return self._prompts.chat(body)

    def admit(self, endpoint: str, body: dict[str, Any]) -> Request:
        """Everything about a request that can be refused; its adapter is in memory then,
        until `release`. Raises `UserError`."""
        read = self.prompt(endpoint, body)
        if not read.tokens:
            param = "messages" if endpoint == CHAT else "prompt"
            raise UserError(
                Code.INVALID_VALUE, "The prompt has no tokens: send some text.", param=param
            )
        if len(read.tokens) >= self._context:
            raise UserError(Code.CONTEXT_LENGTH_EXCEEDED, "The prompt is too long: shorten it.")
        sampling = SamplingParams.of(body, self._tokenizer.size)
        answer = Answer(
            endpoint,
            self._tokenizer,
            _stops(body),
            self.digest,
            prompt=read.text,
            alternatives=sampling.alternatives,
            calls=read.told.own_reader if read.told else None,
            markers=self._prompts.tools.tokens if self._prompts else None,
        )
        digest = body.get("adapter")
        request = Request(
            endpoint=endpoint,
            sequence=Tokens(
                id=new_id("seq"),
                tenant=body.get("tenant") or "",
                tokens=read.tokens,
                max_total=min(self._context, len(read.tokens) + _limit(body, self._context)),
                adapter=digest,
                salt=body.get("cache_salt") or "",
                priority=Priority(body.get("priority") or Priority.INTERACTIVE),
            ),
            sampler=Sampler(sampling),
            ends=self._tokenizer.end_ids,
            answer=answer,
            adapter=None,
        )
        if read.told is not None:
            request.reader = read.told.reader
            request.constraint = self._constraint(read.told, request.sequence.tenant)
        if digest is not None:
            request.adapter = self._acquire(digest)
        return request

    def _constraint(self, told: Told, tenant: str) -> Matcher | None:
        if told.grammar is not None:
            return self._structure.compile_calls(told.grammar, tenant)
        return None if told.form is None else self._structure.compile(told.form, tenant)

    def release(self, request: Request) -> None:
        if request.adapter is not None:
            self._shelf.release(request.adapter.digest)

    def _acquire(self, digest: str) -> Adapter:
        """One that the disk spoilt since it came is forgotten: the gateway tells of it
        again then, and hears what is wrong with it."""
        try:
            return self._shelf.acquire(digest)
        except UserError as error:
            if error.code not in _SPOILT:
                raise
            self._doubted.add(digest)
            self._shelf.drop(digest)
            raise UserError(Code.NOT_FOUND, error.message) from None

    def change_adapters(self, add: Sequence[AdapterFiles], drop: Collection[str]) -> dict[str, str]:
        """The refused with the reason. Many at once are those of a start, each of which
        was checked when it came, and is again when it is first used."""
        refused: dict[str, str] = {}
        for files in add:
            if len(add) > _CHECKED_AT_ONCE and files.digest not in self._doubted:
                continue
            try:
                self._shelf.check(files)
            except UserError as error:
                refused[files.digest] = error.message
            else:
                self._doubted.discard(files.digest)
        self._shelf.register(files for files in add if files.digest not in refused)
        for digest in drop:
            self._shelf.drop(digest)
        return refused

    def _prompts_of(self, options: argparse.Namespace) -> Prompts | None:
        if not self._tokenizer.chat_template:
            return None
        return Prompts(self._tokenizer, template_of(self._tokenizer, options.template_digest))


def _format(text: str) -> Format:
    if text not in get_args(Format):
        raise UserError(Code.CONFIG_INVALID, f"There is no format {text!r} for weights.")
    found: Format = text  # type: ignore[assignment]
    return found


def _stops(body: Mapping[str, Any]) -> list[str]:
    stop = body.get("stop") or []
    return [stop] if isinstance(stop, str) else list(stop)


def _limit(body: Mapping[str, Any], context: int) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        if body.get(name) is not None:
            return max(1, int(body[name]))
    return context
