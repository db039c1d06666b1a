"""The speed that prices rest on is measured once, with an engine that serves."""

from pathlib import Path

from freehold.deploy.probe import Machine, read_machine
from freehold.deploy.speed import Speed, Speeds, measure
from tests.harness import card, running


async def test_it_is_measured_in_tokens_read_and_made(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(30)
        pool = world.gateway.pools["fake-model"]
        found = await measure(pool, card())
        assert found is not None
        assert found.made_per_s is not None
        assert found.read_per_s > found.made_per_s > 0
        assert found.streams == 8


async def test_an_engine_too_slow_to_end_is_known_by_what_it_made_until_then(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, "--slow=0.2") as world:
        await world.replica.ensure_ready(30)
        found = await measure(world.gateway.pools["fake-model"], card(), longest_s=2)
        assert found is not None
        assert found.made_per_s is not None
        assert 0 < found.made_per_s <= 8 / 0.2
        assert found.read_per_s >= found.made_per_s


async def test_an_engine_that_does_not_answer_has_no_speed(tmp_path: Path) -> None:
    async with running(tmp_path, "--crash-at-token=1") as world:
        await world.replica.ensure_ready(30)
        assert await measure(world.gateway.pools["fake-model"], card()) is None


def test_it_is_kept_for_this_machine_and_this_engine(tmp_path: Path) -> None:
    speeds, speed = Speeds(tmp_path, read_machine()), Speed(10.5, None, 8, 7)
    assert speeds.find(card(), "fake") is None
    speeds.keep(card(), "fake", speed)
    assert speeds.find(card(), "fake") == speed
    assert speeds.find(card(), "other") is None
    elsewhere = Speeds(tmp_path, Machine("another", 1, 1, 1))
    assert elsewhere.find(card(), "fake") is None
    (path,) = (tmp_path / "speed").iterdir()
    path.write_text("{")
    assert speeds.find(card(), "fake") is None
