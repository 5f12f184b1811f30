"""What the pictures of the documentation have in common: colours for light and dark, points, round numbers."""

import math
from typing import Any

STYLE = """
  .paper { fill: #ffffff } .ink { fill: #1f2328 } .pale { fill: #59636e } .grid { stroke: #d1d9e0 }
  .blue { stroke: #0969da; fill: #0969da } .orange { stroke: #bc4c00; fill: #bc4c00 }
  .green { stroke: #1a7f37; fill: #1a7f37 } .violet { stroke: #8250df; fill: #8250df }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 } .ink { fill: #e6edf3 } .pale { fill: #9198a1 } .grid { stroke: #3d444d }
    .blue { stroke: #58a6ff; fill: #58a6ff } .orange { stroke: #f0883e; fill: #f0883e }
    .green { stroke: #3fb950; fill: #3fb950 } .violet { stroke: #bc8cff; fill: #bc8cff }
  }
  .line { fill: none; stroke-width: 2 } .orange.line { stroke-dasharray: 6 4 } .green.line { stroke-dasharray: 2 3 }
  .violet.line { stroke-dasharray: 8 3 2 3; stroke-width: 1.5 }
  text, text.violet { font-family: system-ui, sans-serif; font-size: 12px; stroke: none }
  .title { font-size: 14px; font-weight: 600 }
"""


def where(head: dict[str, Any]) -> str:
    """The line that says what was measured on."""
    return f"{head['cpu']}, {head['cpus']} CPUs, {head['system']}, CPython {head['python']}, {head['date']}"


def ceiling(value: float) -> float:
    """A round number of one digit or 2.5 times a power of ten, not below the value."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 4, 5, 8, 10) if step * power >= value * 0.999)


def point(colour: str, x: float, y: float) -> str:
    """A point of a curve: shapes differ, so that nothing depends on colours."""
    if colour == "blue":
        return f'<circle class="blue" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    if colour == "orange":
        return f'<rect class="orange" x="{x - 2.5:.1f}" y="{y - 2.5:.1f}" width="5" height="5"/>'
    if colour == "green":
        return f'<path class="green" d="M{x:.1f} {y - 5:.1f}l4.5 8h-9z"/>'
    return f'<path class="violet" d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5-5z"/>'


def curve(colour: str, points: list[tuple[float, float]]) -> list[str]:
    """A line through points, and the points."""
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return [f'<path class="{colour} line" d="{path}"/>', *(point(colour, x, y) for x, y in points)]
