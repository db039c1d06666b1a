"""A training job as a page: its losses as they were said, also by one that went on from a
checkpoint, and nothing of what others wrote as markup."""

import re
from typing import Any

from freehold.cli.pages.training import Losses, chart, losses, page

_JOB: dict[str, Any] = {
    "id": "job_1", "name": "help <b>me</b>", "kind": "tune", "state": "running",
    "spec": {"base": "tiny", "dataset": "help@1", "objective": "sft", "rank": 16},
    "progress": {"step": 3, "steps": 6, "tokens_per_s": 1234.5}, "result": None, "error": None,
    "created_at": "2026-11-26T10:00:00Z", "created_by": "key_1", "started_at": None,
    "ended_at": None,
}  # fmt: skip


def _said(step: int, loss: float, held_out: float | None = None) -> dict[str, Any]:
    told = {"step": step, "steps": 6, "loss": loss}
    return {"progress": told if held_out is None else told | {"held_out_loss": held_out}}


def test_what_is_said_again_after_a_checkpoint_counts() -> None:
    log = [
        {"log": "begins"}, _said(1, 3.0), _said(2, 2.0, 2.5), _said(3, 1.9, 2.5),
        {"log": "Goes on from step 1 of 6."}, _said(2, 2.1, 2.6), _said(3, 1.8, 2.6),
        _said(4, 1.5, 2.2),
    ]  # fmt: skip
    found = losses(_JOB, log)
    assert found.trained == [(1, 3.0), (2, 2.1), (3, 1.8), (4, 1.5)]
    assert found.held_out == [(2, 2.6), (4, 2.2)]


def test_every_point_is_inside_of_the_chart_and_the_axis_begins_at_nothing() -> None:
    found = Losses([(n, 8.0 / n) for n in range(1, 2001)], [(500, 1.0), (1000, 0.5)], 9.3)
    drawn = chart(found, 2000, 860, 320)
    assert drawn is not None
    places = [tuple(map(float, each.split(","))) for each in drawn.trained.split()]
    assert 300 < len(places) <= 600
    for x, y in [*places, *((x, y) for x, y, _, _ in drawn.dots)]:
        assert drawn.left <= x <= drawn.right
        assert drawn.top <= y <= drawn.bottom
    assert (drawn.y_ticks[0].label, drawn.y_ticks[0].at) == ("0", drawn.bottom)
    assert drawn.before is not None
    assert drawn.before >= drawn.top
    assert chart(Losses([], [], None), 10, 860, 320) is None


def test_a_page_holds_no_markup_of_others_and_fetches_nothing() -> None:
    made = page(_JOB, [_said(1, 3.0), _said(2, 2.0, 2.5)])
    assert "help &lt;b&gt;me&lt;/b&gt;" in made
    assert "<b>" not in made
    assert "1,234 tokens/s" in made
    assert not re.search(r"(src|href)=|url\(|<script", made)
    done = _JOB | {
        "state": "done",
        "result": {"held_out_loss": 0.5, "held_out_loss_before": 2.5, "adapter": "help"},
    }
    assert "Held-out loss 0.500, where the bare base has 2.500." in page(done, [])
    assert "<svg" not in page(done, [])
