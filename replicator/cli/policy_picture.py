"""A simulated policy as SVG, written by hand: interval, lag and fills over one time axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from replicator.cli.policy_model import Moment, Outcome
from replicator.units import format_duration

WIDTH = 920
_LEFT, _RIGHT = 84, 132
_TOP, _HEIGHT, _GAP = 64, 150, 46
_MOST_POINTS = 460
"""A column of pixels shows one value: the highest of those that fall into it."""

_INK, _GRID, _PAPER = "#1f2933", "#d9dee4", "#ffffff"
_BLUE, _ORANGE, _GREEN = "#1f6fb4", "#c8590a", "#2f7d4f"


@dataclass(frozen=True, slots=True)
class _Line:
    label: str
    colour: str
    value: Callable[[Moment], float]


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    lines: Sequence[_Line]
    unit: Callable[[float], str]
    top: float | None = None
    """The axis's end; None for what is there."""


_PANELS = (
    _Panel(
        "interval until the next pull",
        [_Line("interval", _BLUE, lambda moment: moment.decision.seconds)],
        format_duration,
    ),
    _Panel(
        "lag: age of the oldest write that is not here yet",
        [_Line("lag", _BLUE, lambda moment: moment.lag_seconds)],
        format_duration,
    ),
    _Panel(
        "journals that somebody still needs, and load of the machine",
        [
            _Line("source's journal", _BLUE, lambda moment: moment.source),
            _Line("own journal", _ORANGE, lambda moment: moment.own),
            _Line("load", _GREEN, lambda moment: moment.load),
        ],
        lambda part: f"{part:.0%}",
        1.0,
    ),
)


def draw(outcome: Outcome, title: str) -> str:
    """Return the picture; the same outcome gives the same text."""
    height = _TOP + len(_PANELS) * (_HEIGHT + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12" fill="{_INK}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="{_PAPER}"/>',
        _text(_LEFT, 28, title, 'font-size="15" font-weight="bold"'),
    ]
    for at, panel in enumerate(_PANELS):
        parts += _panel(panel, outcome, _TOP + at * (_HEIGHT + _GAP))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: _Panel, outcome: Outcome, top: float) -> list[str]:
    moments, seconds = outcome.moments, max(outcome.seconds, 1e-9)
    values = [line.value(moment) for line in panel.lines for moment in moments]
    highest = panel.top or _nice(max([*values, 1e-3]))
    right, bottom = WIDTH - _RIGHT, top + _HEIGHT
    parts = [_text(_LEFT, top - 8, panel.title)]
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = bottom - part * _HEIGHT
        parts.append(
            f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="{_GRID}" stroke-width="1" fill="none"/>'
        )
        parts.append(_text(_LEFT - 8, y + 4, panel.unit(part * highest), 'text-anchor="end"'))
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _LEFT + part * (right - _LEFT)
        parts.append(_text(x, bottom + 16, format_duration(part * seconds), 'text-anchor="middle"'))
    for at, line in enumerate(panel.lines):
        columns = _columns([(m.at / seconds, line.value(m) / highest) for m in moments])
        parts.append(_path(columns, line.colour, top))
        y = top + 14 + 18 * at
        parts.append(
            f'<path d="M{right + 10} {y - 4}h14" stroke="{line.colour}" stroke-width="2"/>'
        )
        parts.append(_text(right + 28, y, line.label))
    return parts


def _columns(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most _MOST_POINTS points, each the highest of its column, in order."""
    highest: dict[int, float] = {}
    for x, y in points:
        column = min(_MOST_POINTS - 1, int(x * _MOST_POINTS))
        highest[column] = max(y, highest.get(column, 0.0))
    return [(column / _MOST_POINTS, y) for column, y in highest.items()]


def _path(points: Sequence[tuple[float, float]], colour: str, top: float) -> str:
    """Return a stepped line: a value holds until the next one."""
    span, commands = WIDTH - _RIGHT - _LEFT, []
    for at, (x, y) in enumerate(points):
        left, down = _LEFT + x * span, top + _HEIGHT * (1 - min(1.0, y))
        commands.append(f"M{left:.1f} {down:.1f}" if at == 0 else f"H{left:.1f}V{down:.1f}")
    path = "".join([*commands, f"H{WIDTH - _RIGHT}"])
    return f'<path d="{path}" stroke="{colour}" stroke-width="1.5" fill="none"/>'


def _nice(highest: float) -> float:
    """Return the next of 1, 2, 4 or 8 times a power of ten, for an axis in quarters."""
    power = 10.0 ** math.floor(math.log10(highest))
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= highest * 0.999)


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'
