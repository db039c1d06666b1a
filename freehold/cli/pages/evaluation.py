"""An evaluation as one page, and its words."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from freehold.adapt.evaluate.result import chance
from freehold.cli.pages.file import rendered
from freehold.cli.terminal.output import money

_MOST_EXAMPLES = 200
_LONGEST = 4000


def page(found: Mapping[str, Any]) -> str:
    """Of what an evaluation found. All text in it is escaped by the template."""
    return rendered("evaluation", _View(found))


def share_in_words(share: Mapping[str, Any]) -> str:
    if share["share"] is None:
        return "none"
    value, low, high = (share[name] * 100 for name in ("share", "low", "high"))
    return f"{value:.1f} % of {share['of']:,} ({low:.1f} to {high:.1f})"


def points(compared: Mapping[str, Any]) -> str:
    value, low, high = (compared[name] * 100 for name in ("difference", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def amount(found: Mapping[str, Any]) -> str:
    told = (
        f"{found['requests']:,} requests, {found['tokens_in']:,} tokens in and "
        f"{found['tokens_out']:,} out, {found['seconds']:,.0f} s"
    )
    if found.get("cost") is None:
        return f"{told}; what it costs is not known."
    return f"{told}, {money(found['cost'])} {found['currency']}."


def judged_in_words(found: Mapping[str, Any]) -> str:
    judged = found["judged"]
    other = found["incumbent"]["alias"] if found["incumbent"] else "the expected answers"
    name = found["candidate"]["alias"]
    if judged["score"] is None:
        return f"{judged['judge']['alias']} gave no verdict that could be read."
    told = (
        f"{judged['judge']['alias']} prefers {name} in {judged['wins']:,} of {judged['pairs']:,} "
        f"pairs, {other} in {judged['losses']:,}, neither in {judged['ties']:,}: a win rate of "
        f"{judged['score'] * 100:.1f} % ({judged['low'] * 100:.1f} to {judged['high'] * 100:.1f}), "
        f"{judged['verdict']}."
    )
    if judged["first"]["of"]:
        told += f" Where it chose, it chose the first place in {share_in_words(judged['first'])}"
        told += f"; {judged['turned']:,} verdicts followed the place."
    if judged["unread"]:
        told += f" {judged['unread']:,} pairs had no verdict that could be read."
    return told


def loss_in_words(loss: Mapping[str, Any]) -> str:
    if loss["value"] is None:
        return f"Held-out loss of {loss['alias']}: not available. {loss['why']}"
    told = f"Held-out loss of {loss['alias']}: {loss['value']:.3f}"
    if loss["before"] is not None:
        told += f", {loss['before']:.3f} for the bare base"
    return f"{told}, as {loss['job']} measured it when it was trained."


class _View:
    """What the template asks for."""

    shares = staticmethod(share_in_words)
    points = staticmethod(points)
    chance = staticmethod(chance)
    loss = staticmethod(loss_in_words)

    def __init__(self, found: Mapping[str, Any]) -> None:
        self.found = found
        self.candidate, self.incumbent = found["candidate"], found["incumbent"]
        self.made = datetime.now(UTC).strftime("%Y-%m-%d")

    amount = property(lambda self: amount(self.found))
    judged = property(lambda self: judged_in_words(self.found))

    @property
    def has_safety(self) -> bool:
        found = self.found
        asked = [*found["probes"], *found["canaries"]]
        return bool(found["triggers"]) or any(
            each.get(name, {"of": 0})["of"]
            for each in asked
            for name in ("refused", "answered", "extracted")
        )

    @cached_property
    def cases(self) -> list[dict[str, Any]]:
        """What tells most comes first: where the two differ, then what fails."""
        order = {"lost": 0, "won": 1, "wrong": 2, "right": 3}
        found = [{**each, "kind": _kind(each)} for each in self.found["examples"]]
        return sorted(found, key=lambda each: order[each["kind"]])

    @property
    def shown(self) -> list[dict[str, Any]]:
        return self.cases[:_MOST_EXAMPLES]

    @property
    def kinds(self) -> list[tuple[str, str, int]]:
        """The kinds of examples that there are, with how many."""
        words = {
            "lost": "worse than before" if self.incumbent else "",
            "won": "better than before",
            "wrong": "wrong",
            "right": "right",
        }
        counts = [(kind, sum(e["kind"] == kind for e in self.cases)) for kind in words]
        return [(kind, words[kind], count) for kind, count in counts if count]

    def sides(self, case: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        yield self.candidate["alias"], case["candidate"]
        if self.incumbent:
            yield self.incumbent["alias"], case["incumbent"]

    @staticmethod
    def said(message: Mapping[str, Any]) -> str:
        return _cut(str(message.get("content") or "(a call)"))

    @staticmethod
    def text(answer: Mapping[str, Any]) -> str:
        calls = [f"{call['name']}({call['arguments']})" for call in answer["calls"]]
        return _cut("\n".join([answer["text"], *calls]).strip()) or "(nothing)"

    @staticmethod
    def expected(case: Mapping[str, Any]) -> str:
        calls = [f"{call['name']}({call['arguments']})" for call in case["expected_calls"]]
        return _cut("\n".join([case["expected"] or "", *calls]).strip())

    @staticmethod
    def heat(rows: list[list[int]], at: int, column: int) -> int:
        """A step of ten, of the row."""
        whole = sum(rows[at])
        return round(10 * rows[at][column] / whole) if whole else 0


def _kind(case: Mapping[str, Any]) -> str:
    passed, other = case["candidate"]["passed"], case["incumbent"]
    if other is not None and passed is not other["passed"]:
        return "won" if passed else "lost"
    return "right" if passed else "wrong"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text):,} letters)"
