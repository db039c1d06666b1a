"""The labelled cases, read."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from freehold.core.facts import Facts
from freehold.core.plan import Economics, Embedding, Lengths, Rules, Targets, Tuning, Workload
from freehold.decide.ways.at_hand import AtHand


@dataclass(frozen=True)
class Case:
    name: str
    argued: str
    workload: Workload
    ways: tuple[str, ...]
    chosen: str = ""
    rejected: dict[str, str] = field(default_factory=dict)
    at_hand: AtHand | None = None


def read_cases(facts: Facts) -> list[Case]:
    text = (Path(__file__).parent / "cases.yaml").read_text()
    return [_case(each, facts) for each in yaml.safe_load(text)]


def _case(row: dict[str, Any], facts: Facts) -> Case:
    told = row.pop("at_hand", None)
    at_hand = told and AtHand(facts.accelerators[told["accelerator"]], told["count"])
    row["ways"] = tuple(row["ways"])
    return Case(**{**row, "workload": _workload(row["name"], row["workload"]), "at_hand": at_hand})


def _workload(name: str, fields: dict[str, Any]) -> Workload:
    nouns = {
        "targets": Targets, "economics": Economics, "embedding": Embedding, "tuning": Tuning,
    }  # fmt: skip
    told = {
        key: nouns[key](**value)
        if key in nouns
        else tuple(value)
        if isinstance(value, list)
        else value
        for key, value in fields.items()
    }
    told |= {key: Lengths(told[key]) for key in ("prompt", "answer")}
    if "rules" in told:
        sets = ("residency", "certifications")
        told["rules"] = Rules(
            **{key: frozenset(v) if key in sets else v for key, v in told["rules"].items()}
        )
    return Workload(name=name, **told)
