"""What people said of answers becomes a dataset: examples of what was good or corrected, or
pairs of a better and a worse answer to the same. It goes the way of every file of examples."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from freehold.adapt.dataset.example import Malformed, read
from freehold.catalog import datasets
from freehold.catalog.blobs import disk_error
from freehold.catalog.datasets import Datasets
from freehold.config.home import write_private
from freehold.config.schema import DataSettings
from freehold.core.acts import Act, Change
from freehold.core.audit import stream_of
from freehold.core.binding import Environment
from freehold.core.dataset import REPORT, Dataset, DatasetKind
from freehold.core.errors import Code, UserError
from freehold.core.feedback import Rated, Rating
from freehold.operate.feedback.preparing import prepared
from freehold.operate.feedback.said import Message, Said, Unusable, said_in
from freehold.secure.subjects import Subjects
from freehold.serve.feedback import unwanted
from freehold.serve.gateway import FromFeedback
from freehold.store.sql import SqlStore

_PAGE, _MOST = 500, 20_000


@dataclass(frozen=True, slots=True)
class _Opinion:
    rating: Rating
    correction: str | None
    data_keys: Sequence[str]

    @property
    def better(self) -> Message:
        return {"role": "assistant", "content": self.correction}


@dataclass(slots=True)
class _Made:
    """The file of examples as it grows, and what became of each rated answer. `data_keys` are
    those of the people whose words are in it."""

    file: BinaryIO
    sources: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    data_keys: set[str] = field(default_factory=set)

    def add(self, source: str, example: dict[str, Any], data_keys: Iterable[str]) -> None:
        try:
            read(example)
        except Malformed:
            self.unused["holds what is no text, or nothing to answer"] += 1
            return
        self.file.write(orjson.dumps(example) + b"\n")
        self.sources[source] += 1
        self.data_keys.update(data_keys)


class Collecting:
    def __init__(
        self,
        home: Path,
        store: SqlStore,
        subjects: Subjects,
        data: Datasets,
        settings: DataSettings,
    ) -> None:
        self._home = home
        self._store = store
        self._subjects = subjects
        self._data = data
        self._settings = settings

    def collect(
        self, tenant_id: str, environment: Environment, wanted: FromFeedback
    ) -> tuple[Dataset, dict[str, Any]]:
        """The dataset and its report. May block. Raises `UserError`; then nothing is kept."""
        tenant = self._store.tenant(tenant_id)
        if tenant is None or not tenant.feedback:
            raise unwanted()
        origin = _origin(environment, wanted)
        datasets.check_said(wanted.name, wanted.licence, origin)
        stream = stream_of(tenant_id, environment)
        self._store.acted(Change(Act.FEEDBACK_COLLECT, stream, wanted.name))
        with (
            datasets.staged(self._home) as (_, scratch),
            datasets.staged(self._home) as (ticket, folder),
        ):
            made = self._written(scratch / "feedback.jsonl", tenant_id, environment, wanted)
            told = {"sources": dict(made.sources), "unused": dict(made.unused)}
            if made.sources.total() < 2:
                raise _too_few(made)
            self._prepare(scratch, folder, wanted)
            report = json.loads((folder / REPORT).read_bytes()) | told
            write_private(folder / REPORT, json.dumps(report, ensure_ascii=False).encode())
            new = datasets.Wanted(
                ticket, wanted.name, wanted.licence, origin, wanted.accept,
                frozenset(made.data_keys),
            )  # fmt: skip
            return self._data.add(tenant_id, environment, new), report

    def _prepare(self, scratch: Path, folder: Path, wanted: FromFeedback) -> None:
        prepared(
            scratch / "feedback.jsonl",
            folder,
            wanted.kind.value,
            {
                "held_out": wanted.held_out,
                "seed": wanted.seed,
                "redact": wanted.redact,
                "max_gb": self._settings.max_gb,
                "max_examples": self._settings.max_examples,
            },
        )

    def _written(
        self, path: Path, tenant_id: str, environment: Environment, wanted: FromFeedback
    ) -> _Made:
        by_request: dict[str, list[Rated]] = {}
        for each in self._rated(tenant_id, environment, wanted):
            by_request.setdefault(each.feedback.request_id, []).append(each)
        try:
            path.touch(mode=0o600, exist_ok=False)
            with path.open("wb") as file, (path.parent / "rated").open("w+b") as scratch:
                made = _Made(file)
                pairs = _Pairs(scratch)
                for rated in by_request.values():
                    try:
                        self._take(made, pairs, rated, wanted.kind)
                    except Unusable as why:
                        made.unused[str(why)] += 1
                pairs.end(made)
        except OSError as error:
            raise disk_error(error, self._home) from None
        return made

    def _rated(
        self, tenant_id: str, environment: Environment, wanted: FromFeedback
    ) -> Iterator[Rated]:
        after, count = "", 0
        while page := self._store.rated(
            tenant_id, environment, _PAGE, after, since_us=wanted.since_us, alias=wanted.alias
        ):
            count += len(page)
            if count > _MOST:
                raise UserError(
                    Code.REQUEST_TOO_LARGE,
                    f"More than {_MOST:,} answers were rated: take fewer, by --since or --alias.",
                )
            yield from page
            after = page[-1].feedback.id

    def _take(
        self, made: _Made, pairs: "_Pairs", rated: Sequence[Rated], kind: DatasetKind
    ) -> None:
        """Raises `Unusable`."""
        opinions = [self._opinion(each) for each in rated]
        said, kept_under = self._said(rated[0]), rated[0].data_keys
        corrected = [each for each in opinions if each.correction]
        ratings = {each.rating for each in opinions}
        if kind is DatasetKind.CHAT:
            if corrected:
                last = corrected[-1]
                keys = {*kept_under, *last.data_keys}
                made.add("corrected answers", _example(said, last.better), keys)
                return
            if ratings == {Rating.DOWN}:
                raise Unusable("thumb down, without a better answer")
            answer = _whole(said, ratings)
            made.add("thumbs up", _example(said, answer), kept_under)
            return
        corrected = [each for each in corrected if each.rating is Rating.DOWN]
        if corrected:
            last = corrected[-1]
            if said.answer is None:
                raise Unusable("the answer did not come to its end")
            keys = {*kept_under, *last.data_keys}
            made.add("corrected answers", _pair(said, last.better, said.answer), keys)
            return
        answer = _whole(said, ratings)
        pairs.add(said, answer, kept_under, is_good=ratings == {Rating.UP})

    def _opinion(self, rated: Rated) -> _Opinion:
        given = rated.feedback
        if given.sealed is None:
            return _Opinion(given.rating, None, ())
        text = self._subjects.read_content(given.data_keys, given.sealed, given.id)
        correction = None if text is None else orjson.loads(text)["correction"]
        return _Opinion(given.rating, correction, given.data_keys)

    def _said(self, rated: Rated) -> Said:
        if rated.sealed is None:
            raise Unusable("what was said is not kept (`freehold tenant set --audit-content on`)")
        request_id = rated.feedback.request_id
        text = self._subjects.read_content(rated.data_keys, rated.sealed, request_id)
        if text is None:
            raise Unusable("somebody whom it was about is forgotten")
        return said_in(rated.endpoint, orjson.loads(text))


class _Pairs:
    """Answers to the same, of which one was found good and another bad; they wait on the disk."""

    def __init__(self, scratch: BinaryIO) -> None:
        self._scratch = scratch
        self._asked: dict[bytes, tuple[list[int], list[int]]] = {}  # good, bad

    def add(self, said: Said, answer: Message, data_keys: Sequence[str], *, is_good: bool) -> None:
        asked = orjson.dumps([said.prompt, said.tools], option=orjson.OPT_SORT_KEYS)
        places = self._asked.setdefault(hashlib.sha256(asked).digest(), ([], []))
        places[not is_good].append(self._scratch.tell())
        line = {
            "prompt": said.prompt,
            "tools": said.tools,
            "answer": answer,
            "data_keys": data_keys,
        }
        self._scratch.write(orjson.dumps(line) + b"\n")

    def end(self, made: _Made) -> None:
        """Each bad answer beside a good one, these in turn."""
        for good, bad in self._asked.values():
            if not good or not bad:
                made.unused["no answer to the same was rated the other way"] += len(good + bad)
                continue
            for number, place in enumerate(bad):
                worse, better = self._at(place), self._at(good[number % len(good)])
                if worse["answer"] == better["answer"]:
                    made.unused["the same answer was rated both ways"] += 1
                    continue
                said = Said(worse["prompt"], worse["tools"], None)
                keys = (*worse["data_keys"], *better["data_keys"])
                pair = _pair(said, better["answer"], worse["answer"])
                made.add("thumbs up and down", pair, keys)

    def _at(self, place: int) -> dict[str, Any]:
        self._scratch.seek(place)
        found: dict[str, Any] = orjson.loads(self._scratch.readline())
        return found


def _whole(said: Said, ratings: set[Rating]) -> Message:
    if len(ratings) > 1:
        raise Unusable("people disagree about it")
    if said.answer is None:
        raise Unusable("the answer did not come to its end")
    return said.answer


def _example(said: Said, answer: Message) -> dict[str, Any]:
    """Only the answer that was rated is learned."""
    earlier = [
        {**each, "weight": 0} if each.get("role") == "assistant" else each for each in said.prompt
    ]
    return {"messages": [*earlier, answer], **_tools(said)}


def _pair(said: Said, better: Message, worse: Message) -> dict[str, Any]:
    return {"prompt": said.prompt, "chosen": [better], "rejected": [worse], **_tools(said)}


def _tools(said: Said) -> dict[str, Any]:
    return {"tools": said.tools} if said.tools else {}


def _origin(environment: Environment, wanted: FromFeedback) -> str:
    since = time.strftime("%Y-%m-%d", time.gmtime(wanted.since_us / 1e6))
    until = time.strftime("%Y-%m-%d", time.gmtime())
    begun = f"from {since} " if wanted.since_us else ""
    return f"feedback on {wanted.alias or 'all aliases'} in {environment}, {begun}to {until}"


def _too_few(made: _Made) -> UserError:
    why = "; ".join(f"{count} × {reason}" for reason, count in made.unused.most_common())
    return UserError(
        Code.FILE_INVALID,
        f"What people said gives {made.sources.total() or 'no'} example"
        f"{f' ({why})' if why else ''}: at least two are needed.",
    )
