"""Fits the shares of compute and bandwidth that engines reach to the published measurements, and
writes them to freehold/decide/speed/fitted.py; prints how far off they are on cases that were held
out, and on those kept for acceptance, which no fit sees.

    python bench/fit_throughput.py           fits, and tells the errors of those held out
    python bench/fit_throughput.py --accept  tells those for acceptance of the values as they are
"""

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from freehold.catalog.facts import load_facts
from freehold.decide.published.fitting import (
    PRIORS,
    by_hardware,
    error,
    fit,
    halves,
    held_out,
    parted,
    spread,
)
from freehold.decide.published.replay import Case, cases_of
from freehold.decide.speed import fitted

OUT = Path(__file__).parent.parent / "freehold" / "decide" / "speed" / "fitted.py"
SHUFFLES = 8


def main() -> None:
    cases, unseen = parted(cases_of(load_facts()))
    if "--accept" in sys.argv:
        told = spread([error(case, fitted.VALUES) for case in unseen])
        OUT.write_text(_module(fitted.VALUES, told.median, told.nine_in_ten))
        return _acceptance(unseen, fitted.VALUES)
    values = fit(cases)
    OUT.write_text(_module(values, fitted.MEDIAN_ERROR, fitted.NINE_IN_TEN_WITHIN))
    errors = held_out(cases, halves(cases, SHUFFLES), values)
    kinds = {case.id: case.kind for case in cases}
    every = [off for each in errors.values() for off in each]
    print("| value | expected | fitted |\n|---|---|---|")
    for name, (prior, _) in PRIORS.items():
        print(f"| `{name}` | {prior:.3g} | {values[name]:.3g} |")
    print(f"\n{len(cases)} cases; half of them tested with what the other half gives:\n")
    rows = {
        kind: [off for name, each in errors.items() if kinds[name] == kind for off in each]
        for kind in sorted(set(kinds.values()))
    }
    _table("kind", {"all": every, **rows}, SHUFFLES)
    print("\nEach hardware tested with what all other hardware gives:\n")
    groups = by_hardware(cases)
    apart = held_out(cases, list(groups.values()), values)
    alone = {
        name: [off for each in group for off in apart[each.id]] for name, group in groups.items()
    }
    _table("hardware", {"all": [off for each in alone.values() for off in each], **alone}, 1)


def _acceptance(unseen: list[Case], values: Mapping[str, float]) -> None:
    off = {case.id: error(case, values) for case in unseen}
    rows = {
        kind: [off[case.id] for case in unseen if case.kind == kind]
        for kind in sorted({case.kind for case in unseen})
    }
    _table("kind", {"all": list(off.values()), **rows}, 1)
    print("\nFurthest off:")
    for case in sorted(unseen, key=lambda each: -abs(off[each.id]))[:12]:
        hardware = f"{case.source.count} x {case.accelerator.id}"
        print(f"{case.id}: {case.model.id} on {hardware}, {math.exp(off[case.id]) - 1:+.0%}")


def _table(title: str, rows: Mapping[str, Iterable[float]], times: int) -> None:
    print(f"| {title} | cases | median error | nine in ten within | within 40% |")
    print("|---|---|---|---|---|")
    for name, errors in rows.items():
        told = spread(list(errors))
        print(
            f"| {name} | {told.count // times} | {told.median:.0%} | {told.nine_in_ten:.0%} "
            f"| {told.within_40:.0%} |"
        )


def _module(values: Mapping[str, float], median: float, nine_in_ten: float) -> str:
    told = "".join(f'        "{name}": {value:.4g},\n' for name, value in values.items())
    return (
        '"""Made by bench/fit_throughput.py from facts/throughput.yaml, never by hand."""\n\n'
        "from collections.abc import Mapping\n"
        "from types import MappingProxyType\n\n"
        f"VALUES: Mapping[str, float] = MappingProxyType(\n    {{\n{told}    }}\n)\n\n"
        "# Of the error on cases that no fit saw, as a share of what was measured.\n"
        f"MEDIAN_ERROR, NINE_IN_TEN_WITHIN = {median:.2f}, {nine_in_ten:.2f}\n"
    )


if __name__ == "__main__":
    main()
