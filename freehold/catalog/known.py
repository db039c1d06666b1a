"""The catalog: models known by name, from the data file beside this one."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from freehold.catalog import licences
from freehold.core.model import Task


@dataclass(frozen=True, slots=True)
class KnownSource:
    """`digest` is that of the model file; None: nobody has established it, and the
    pull records what it got. `size_bytes` is what is fetched; 0: unknown."""

    reference: str
    digest: str | None
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Known:
    name: str
    task: Task
    licence: str
    parameters_b: float
    memory_gb: float
    rank: int
    smoke: bool
    facts: tuple[str, ...]  # where licence and shape were read
    sources: tuple[KnownSource, ...]

    @property
    def pull_command(self) -> str:
        return f"freehold model pull {self.name}"


@cache
def _content() -> tuple[str, dict[str, Known]]:
    raw = yaml.safe_load((files("freehold.catalog") / "known.yaml").read_bytes())
    models = [
        Known(
            name=entry["name"],
            task=Task(entry["task"]),
            licence=entry["licence"],
            parameters_b=entry["parameters_b"],
            memory_gb=entry["memory_gb"],
            rank=entry["rank"],
            smoke=entry.get("smoke", False),
            facts=tuple(entry.get("facts", ())),
            sources=tuple(
                KnownSource(one["from"], one["digest"], one.get("bytes", 0))
                for one in entry["sources"]
            ),
        )
        for entry in raw["models"]
    ]
    return raw["default"], {model.name: model for model in models}


def default_name() -> str:
    return _content()[0]


def find(name: str) -> Known | None:
    return _content()[1].get(name)


def every() -> list[Known]:
    return list(_content()[1].values())


def best_fitting(memory_bytes: int) -> Known | None:
    """The strongest chat model that fits into four fifths of this memory; the rest
    is for the system and for what is measured wrongly. Only models that may be used
    without asking anybody: this is a recommendation."""
    room_gb = memory_bytes * 0.8 / 1e9
    fitting = [model for model in every() if _is_for_work(model) and model.memory_gb <= room_gb]
    return max(fitting, key=lambda model: model.rank, default=None)


def _is_for_work(model: Known) -> bool:
    is_free = licences.named(model.licence).commercial_use is True
    return model.task is Task.CHAT and not model.smoke and is_free
