"""Datasets in a home: whole or not at all, each tenant's own, and refused for what they hold."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from freehold.adapt.dataset.prepare import Wanted as Prepared
from freehold.adapt.dataset.prepare import prepare
from freehold.catalog.datasets import Datasets, Wanted, staged, staging
from freehold.core.binding import Environment
from freehold.core.clock import SystemClock
from freehold.core.dataset import Dataset, DatasetKind
from freehold.core.errors import Code, UserError
from freehold.store.sql import SqlStore
from tests.adapt.dataset.conftest import chat
from tests.adapt.making import laid
from tests.databases import stock
from tests.store.making import a_job

_HERE = ("ten_a", Environment.DEV)


@dataclass
class Place:
    home: Path
    store: SqlStore
    datasets: Datasets

    def add(self, seed: int = 1, name: str = "tickets", **said: str) -> Dataset:
        wanted = {"licence": "CC0-1.0", "origin": "tests", **said}
        return self.datasets.add(*_HERE, Wanted(laid(self.home, seed), name, **wanted))

    @property
    def folders(self) -> set[str]:
        return {each.name for each in (self.home / "data" / "ten_a" / "dev").iterdir()}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    store = SqlStore(stock(tmp_path / "x.db"))
    yield Place(tmp_path, store, Datasets(tmp_path, store, SystemClock()))
    store.close()


def test_a_dataset_comes_back_as_it_went_in_with_its_files_and_its_report(place: Place) -> None:
    added = place.add()
    assert (added.name, added.version, added.kind) == ("tickets", 1, DatasetKind.CHAT)
    assert (added.train + added.held_out, added.licence, added.accepted) == (12, "CC0-1.0", None)
    for reference in ("tickets", "tickets@1", added.id, added.digest):
        assert place.datasets.get(*_HERE, reference) == added
    folder = place.datasets.files(added)
    assert folder.name == added.digest.removeprefix("sha256:")
    assert folder.stat().st_mode & 0o777 == 0o700
    report = place.datasets.report(added)
    assert report is not None
    assert report["train"] == added.train
    assert list(staging(place.home).iterdir()) == []


def test_the_same_again_changes_nothing_and_other_data_get_the_next_version(place: Place) -> None:
    first, again = place.add(), place.add()
    assert again == first
    second = place.add(2)
    assert (second.version, place.datasets.get(*_HERE, "tickets")) == (2, second)
    assert place.add(2, origin="elsewhere").version == 3
    assert len(place.folders) == 2
    assert [each.version for each in place.datasets.page(*_HERE, 10)] == [1, 2, 3]
    assert [each.version for each in place.datasets.page(*_HERE, 10, first.id)] == [2, 3]


def test_files_go_with_the_last_row_that_needs_them(place: Place) -> None:
    place.add()
    place.add(name="copy")
    assert place.datasets.remove(*_HERE, "tickets@1").name == "tickets"
    assert len(place.folders) == 1
    place.datasets.remove(*_HERE, "copy")
    assert place.folders == set()
    with pytest.raises(UserError) as refused:
        place.datasets.remove(*_HERE, "copy")
    assert refused.value.code is Code.NOT_FOUND


def test_a_dataset_stays_while_a_job_that_has_not_ended_needs_it(place: Place) -> None:
    added = place.add()
    place.store.add_job("ten_a", a_job("job_1", spec={"dataset": added.digest}))
    with pytest.raises(UserError) as refused:
        place.datasets.remove(*_HERE, "tickets")
    assert refused.value.code is Code.CONFLICT
    assert "job_1 needs tickets@1" in refused.value.message
    assert place.datasets.files(added).is_dir()
    place.store.cancel_job(*_HERE, "job_1", 7)
    place.datasets.remove(*_HERE, "tickets")
    assert place.folders == set()


def test_another_tenant_and_another_environment_have_none_of_it(place: Place) -> None:
    added = place.add()
    for elsewhere in (("ten_b", Environment.DEV), ("ten_a", Environment.PROD)):
        assert place.datasets.page(*elsewhere, 10) == []
        for reference in ("tickets", added.id, added.digest):
            with pytest.raises(UserError) as refused:
                place.datasets.get(*elsewhere, reference)
            assert refused.value.code is Code.NOT_FOUND


def test_files_that_were_changed_are_not_trained_on(place: Place) -> None:
    added = place.add()
    with (place.datasets.files(added) / "train.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(UserError, match="are missing or were changed: add the dataset again"):
        place.datasets.files(added)
    place.add()
    assert place.datasets.files(added).is_dir()


def test_secrets_keep_a_dataset_out_until_somebody_says_why_they_may_stay(place: Place) -> None:
    def ticket() -> str:
        path = place.home / "x.jsonl"
        secret = chat("My key is ghp_" + "q7R8" * 9, "account")
        path.write_text(f"{json.dumps(secret)}\n{json.dumps(chat('Hi', 'other'))}\n")
        kept = laid(place.home)
        for each in (staging(place.home) / kept).iterdir():
            each.unlink()
        prepare(path, staging(place.home) / kept, Prepared())
        return kept

    wanted = ("keys", "CC0-1.0", "tests")
    for reason in (None, " "):
        with pytest.raises(UserError, match="hold api key × 1 ") as refused:
            place.datasets.add(*_HERE, Wanted(ticket(), *wanted, reason))
        assert refused.value.code is Code.FILE_REFUSED
        assert "ghp_" not in refused.value.message
    assert place.datasets.page(*_HERE, 10) == []
    added = place.datasets.add(*_HERE, Wanted(ticket(), *wanted, "It was revoked."))
    assert place.datasets.get(*_HERE, "keys").accepted == "It was revoked." == added.accepted
    assert place.add(accept="for nothing").accepted is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "a b"), ("name", "x@1"), ("licence", ""), ("licence", "?"), ("origin", " ")],
)
def test_words_that_cannot_be_kept_are_refused_by_name(
    place: Place, field: str, value: str
) -> None:
    with pytest.raises(UserError) as refused:
        place.add(**{field: value})  # type: ignore[arg-type]
    assert (refused.value.code, refused.value.param) == (Code.INVALID_VALUE, field)


@pytest.mark.parametrize("missing", ["report.json", "train.jsonl", "held_out.jsonl"])
def test_an_upload_that_is_not_whole_leaves_nothing(place: Place, missing: str) -> None:
    ticket = laid(place.home)
    (staging(place.home) / ticket / missing).unlink()
    with pytest.raises(UserError):
        place.datasets.add(*_HERE, Wanted(ticket, "x", "CC0-1.0", "tests"))
    assert place.datasets.page(*_HERE, 10) == []
    assert list(staging(place.home).iterdir()) == []


@pytest.mark.parametrize("ticket", ["../../etc", "0" * 32, "x", ""])
def test_only_an_upload_is_taken_in(place: Place, ticket: str) -> None:
    with pytest.raises(UserError):
        place.datasets.add(*_HERE, Wanted(ticket, "x", "CC0-1.0", "tests"))


def test_what_a_command_laid_down_goes_with_it(tmp_path: Path) -> None:
    with pytest.raises(UserError), staged(tmp_path) as (_, folder):  # noqa: PT012
        (folder / "x").touch()
        raise UserError(Code.CONFLICT, "no")
    assert list(staging(tmp_path).iterdir()) == []
