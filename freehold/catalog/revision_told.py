"""What the file of a revision says, in format 1: parsed once, whoever signed it, then trusted."""

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    ValidationError,
    model_validator,
)

from freehold.catalog import revision_file
from freehold.config.schema import Name
from freehold.core.binding import Environment
from freehold.core.gate import Gate, Verdict
from freehold.core.limit import SENSIBLE, Measure, Period

VERSION = "1"
_Shape = TypeVar("_Shape", bound=BaseModel)
_Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
_Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Text = Annotated[str, Field(max_length=100_000)]


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ToldBase(_Told):
    """`source` is where it was pulled from."""

    digest: _Digest
    name: _Text
    source: _Text


class ToldAdapter(_Told):
    digest: _Digest
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class ToldLimit(_Told):
    """Of the environment as a whole; `amount` of money in millionths of the file's currency."""

    measure: Measure
    period: Period
    amount: Annotated[int, Field(ge=0, lt=2**63)]

    @model_validator(mode="after")
    def _is_sensible(self) -> "ToldLimit":
        if self.period not in SENSIBLE[self.measure]:
            raise ValueError(f"{self.measure} has no limit for {self.period}")
        return self


class About(_Told):
    """`environment` is where it served there, `environments` are all that are served there;
    tokenizer and template are those that the base served with, policies the tenant's own in force,
    by digest."""

    version: Literal[1]
    alias: Name
    environment: Environment
    environments: tuple[Environment, ...]
    base: ToldBase
    adapter: ToldAdapter
    tokenizer_digest: _Digest | None
    template_digest: _Digest | None
    policies: Annotated[dict[_Text, _Digest], Field(max_length=1000)]
    limits: Annotated[tuple[ToldLimit, ...], Field(max_length=100)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class ToldVerdict(_Told):
    name: _Text
    needed: _Text
    found: _Text
    passed: bool


class ToldGate(_Told):
    """`decided_by` is the key of the installation that did, where that is not the one that wrote
    the file."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")]
    environment: Environment
    base_digest: _Digest
    adapter_digest: _Digest
    suite_name: _Text
    suite_digest: _Text
    incumbent_digest: _Text | None
    passed: bool
    verdicts: Annotated[tuple[ToldVerdict, ...], Field(min_length=1, max_length=1000)]
    job: _Text | None
    made_at_us: Annotated[int, Field(ge=0, lt=2**62)]
    made_by: _Text
    decided_by: _Key | None

    def verdicts_as_made(self) -> tuple[Verdict, ...]:
        return tuple(Verdict(v.name, v.needed, v.found, v.passed) for v in self.verdicts)


class ToldSignature(_Told):
    key: _Key
    bundle: str
    manifest: str | None


class ToldFigures(RootModel[dict[str, Any]]):
    """What an evaluation measured, for people to look at."""


class ToldSignatures(_Told):
    signatures: Annotated[tuple[ToldSignature, ...], Field(max_length=100)]


def gate_as_told(gate: Gate) -> ToldGate:
    there = gate.elsewhere
    return ToldGate(
        id=gate.id if there is None else there.gate,
        environment=gate.environment if there is None else there.environment,
        base_digest=gate.base_digest,
        adapter_digest=gate.adapter_digest or "",
        suite_name=gate.suite_name,
        suite_digest=gate.suite_digest,
        incumbent_digest=gate.incumbent_digest,
        passed=gate.passed,
        verdicts=tuple(
            ToldVerdict(name=v.name, needed=v.needed, found=v.found, passed=v.passed)
            for v in gate.verdicts
        ),
        job=gate.job,
        made_at_us=gate.made_at_us,
        made_by=gate.made_by,
        decided_by=None if there is None else there.signer.key,
    )


def about(text: bytes) -> About:
    """Raises `FILE_REFUSED`, as all of these."""
    version = _version(text)
    if version != VERSION:
        raise revision_file.refused(
            f"it is written in format {version}, and this version of Freehold reads {VERSION}"
        )
    return _parsed(About, text, revision_file.ABOUT)


def gate(text: bytes) -> ToldGate:
    found = _parsed(ToldGate, text, revision_file.GATE)
    if found.passed is not all(each.passed for each in found.verdicts):
        raise revision_file.refused("its gate says otherwise than its verdicts")
    return found


def figures(text: bytes | None) -> dict[str, Any] | None:
    return None if text is None else _parsed(ToldFigures, text, revision_file.FIGURES).root


def signatures(text: bytes | None) -> tuple[ToldSignature, ...]:
    if text is None:
        return ()
    return _parsed(ToldSignatures, text, revision_file.SIGNATURES).signatures


def _version(text: bytes) -> str:
    try:
        return str(json.loads(text)["version"])[:20]
    except (ValueError, RecursionError, KeyError, TypeError):
        return "unknown"


def _parsed(shape: type[_Shape], text: bytes, name: str) -> _Shape:
    try:
        return shape.model_validate_json(text)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "all of it"
        raise revision_file.refused(f"{name} is not as it should be ({where[:100]})") from None
