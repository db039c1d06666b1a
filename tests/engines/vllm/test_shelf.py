"""Which adapters vLLM is given, and when they go."""

from pathlib import Path

import pytest

from freehold.core.adapter import CONFIG, WEIGHTS
from freehold.engines.vllm.shelf import Shelf
from tests.engines.vllm.making import Holder, told


@pytest.fixture
def holder() -> Holder:
    return Holder()


@pytest.fixture
def shelf(holder: Holder, tmp_path: Path) -> Shelf:
    return Shelf(holder, tmp_path / "private", 2)


async def test_an_adapter_is_given_in_a_folder_by_its_digest_with_the_names_of_peft(
    shelf: Shelf, holder: Holder, tmp_path: Path
) -> None:
    one = told(tmp_path / "one")
    assert await shelf.change([one], []) == {}
    assert await shelf.change([one], []) == {}
    folder = holder.held[one["digest"]]
    assert folder == tmp_path / "private" / one["digest"].removeprefix("sha256:")
    assert {path.name for path in folder.iterdir()} == {CONFIG, WEIGHTS}
    assert one["digest"] in shelf


async def test_other_files_than_the_digest_says_never_reach_vllm(
    shelf: Shelf, holder: Holder, tmp_path: Path
) -> None:
    changed = {**told(tmp_path / "one"), "weights": told(tmp_path / "two", b"x")["weights"]}
    lost = {**told(tmp_path / "three", b"y"), "config": str(tmp_path / "nothing")}
    assert await shelf.change([changed, lost], []) == {
        changed["digest"]: "its files were changed",
        lost["digest"]: "its files cannot be read",
    }
    outside = {**told(tmp_path / "four", b"z"), "digest": "../../outside"}
    assert await shelf.change([outside], []) == {"../../outside": "its name is no digest"}
    assert not holder.held
    assert not (tmp_path / "private").exists()


async def test_what_vllm_cannot_read_is_refused_and_leaves_nothing(
    shelf: Shelf, tmp_path: Path
) -> None:
    bad = told(tmp_path / "bad", b"bad")
    assert await shelf.change([bad], []) == {bad["digest"]: "vLLM cannot load it"}
    assert bad["digest"] not in shelf
    assert not list((tmp_path / "private").iterdir())


async def test_no_more_are_held_than_it_may(shelf: Shelf, holder: Holder, tmp_path: Path) -> None:
    made = [told(tmp_path / str(number), bytes([number])) for number in range(3)]
    refused = await shelf.change(made, [])
    assert list(refused) == [made[2]["digest"]]
    assert "max_adapters" in refused[made[2]["digest"]]
    assert await shelf.change([made[2]], [made[0]["digest"]]) == {}
    assert set(holder.held) == {made[1]["digest"], made[2]["digest"]}


async def test_a_dropped_adapter_stays_with_the_requests_that_run_under_it(
    shelf: Shelf, holder: Holder, tmp_path: Path
) -> None:
    one, two = told(tmp_path / "one"), told(tmp_path / "two", b"2")
    digest = one["digest"]
    await shelf.change([one], [])
    with shelf.used(digest):
        await shelf.change([], [digest])
        assert digest not in shelf
        assert digest in holder.held
        await shelf.change([one], [])  # it comes back meanwhile
        assert digest in shelf
        await shelf.change([], [digest])
    await shelf.change([two], [])
    assert set(holder.held) == {two["digest"]}
    assert not (tmp_path / "private" / digest.removeprefix("sha256:")).exists()


async def test_dropping_what_is_not_there_is_nothing(shelf: Shelf) -> None:
    assert await shelf.change([], ["sha256:" + "0" * 64]) == {}
