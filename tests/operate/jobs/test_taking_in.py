"""What a job made is taken in like any adapter, and says which job that was."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from freehold.catalog.adapters import Adapters
from freehold.catalog.signatures import Signatures
from freehold.catalog.store import ModelStore
from freehold.config.schema import SupplySettings
from freehold.core.binding import Environment
from freehold.core.clock import SystemClock
from freehold.core.errors import Code, UserError
from freehold.core.job import Job, JobKind
from freehold.core.peft import RankLimit
from freehold.operate.jobs.supervisor import Taken
from freehold.operate.jobs.taking_in import TakingIn
from freehold.store.sql import SqlStore
from tests.catalog.making import decoder_bytes, peft_folder, write
from tests.databases import stock
from tests.harness import DIGEST, card
from tests.store.making import a_job

_JOB = a_job("job_1", name="helper")


class Shelf:
    def __init__(self, home: Path) -> None:
        self.store = SqlStore(stock(home / "freehold.db"))
        models = ModelStore(home)
        models.add(card())
        write(models.blobs.path(DIGEST), decoder_bytes())
        clock = SystemClock()
        signatures = Signatures(home / "signing", self.store, SupplySettings(), clock)
        self.adapters = Adapters(
            home, self.store, models, signatures, clock, lambda _: RankLimit(64)
        )
        self.work = home / "jobs" / "job_1"
        self.work.mkdir(parents=True)
        self._take_in = TakingIn(home, self.adapters, self._decided)

    def take_in(self, job: Job = _JOB, **result: Any) -> Mapping[str, Any]:
        made = {"folder": "adapter", "manifest": {"base_digest": DIGEST}, **result}
        return self._take_in(job, made, self.work).told

    def _decided(self, job: Job, result: Mapping[str, Any], work: Path) -> Taken:
        return Taken({"decided": job.id})


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    home = tmp_path / "home"
    home.mkdir()
    made = Shelf(home)
    peft_folder(made.work / "adapter", 5)
    yield made
    made.store.close()


def test_an_adapter_names_the_job_that_made_it_and_is_there_once(shelf: Shelf) -> None:
    told = shelf.take_in()
    found = shelf.adapters.get("ten_a", Environment.DEV, "helper")
    assert told == {"adapter": "helper", "adapter_digest": found.digest}
    assert found.manifest is not None
    assert (found.manifest.job, found.manifest.base_digest) == ("job_1", DIGEST)
    assert found.source == "job:job_1"
    assert shelf.take_in() == told, "a gateway that was killed in between does it again"


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ({"manifest": {"base_digest": "sha256:" + "0" * 64}}, Code.MODEL_NOT_FOUND),
        ({"manifest": {"base_digest": DIGEST, "template_digest": "sha256:" + "0" * 64}},
         Code.ADAPTER_MISMATCH),
        ({"manifest": None}, Code.FILE_REFUSED),
        ({"folder": "../../secrets"}, Code.FILE_INVALID),
        ({"folder": "nothing"}, Code.FILE_INVALID),
    ],
)  # fmt: skip
def test_what_is_not_what_it_says_is_not_taken_in(
    shelf: Shelf, result: dict[str, Any], code: Code
) -> None:
    (shelf.work.parents[1] / "secrets").mkdir()
    with pytest.raises(UserError) as refused:
        shelf.take_in(**result)
    assert refused.value.code is code
    assert shelf.adapters.page("ten_a", Environment.DEV, 10) == []


def test_an_evaluation_is_decided_and_leaves_no_adapter(shelf: Shelf) -> None:
    told = shelf.take_in(dataclasses.replace(_JOB, kind=JobKind.EVAL))
    assert told == {"decided": _JOB.id}
    assert shelf.adapters.page("ten_a", Environment.DEV, 10) == []
