"""A month of invented keys: hardly one is taken for stolen, and stolen ones are noticed."""

import sys
from pathlib import Path

import pytest

_BENCH = Path(__file__).parents[2] / "bench"


def test_a_month_of_keys_of_all_kinds_and_thefts_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(_BENCH))
    import patterns  # type: ignore[import-not-found]
    import traces  # type: ignore[import-not-found]

    users = traces.fleet(seed=11, share=0.15)
    alarms, thefts = patterns.replay(users)
    weeks = (traces.DAYS - 5) / 7
    assert len(alarms) / weeks <= 1, alarms
    by_kind = {
        how: [each for each in thefts if each.how == how] for how in ("grab", "drain", "flood")
    }
    assert all(each.minutes is not None and each.minutes < 30 for each in by_kind["grab"])
    for how in ("drain", "flood"):
        noticed = [each for each in by_kind[how] if each.minutes is not None]
        assert len(noticed) >= 0.6 * len(by_kind[how]), how
    for name in ("patterns", "traces", "machine"):
        sys.modules.pop(name, None)
