"""Line drawings for the book's pages: SVG that takes its colours from the page, dark or light.

A drawing is 360 units wide, the width of a phone, so that its text is legible there; on a wide
screen it grows. Orange stands for what speaks *for* (raises, is known, is present), blue for what
speaks *against*, grey for what is absent, as in the whole book.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

__all__ = ["Sketch"]

WIDTH = 360
_STYLE = (
    "<style>.shaplab-sketch{--for:#c2500c;--against:#2166ac;--quiet:#767676;margin:1rem auto;"
    "max-width:36rem;color:inherit}"
    "html[data-theme=dark] .shaplab-sketch{--for:#f2a068;--against:#86b9f0;--quiet:#a3a3a3}"
    ".shaplab-sketch svg{width:100%;height:auto;display:block}"
    ".shaplab-sketch figcaption{font-size:.9rem;margin-top:.4rem}</style>"
)
_COLOURS = {
    "ink": "currentColor",
    "for": "var(--for)",
    "against": "var(--against)",
    "quiet": "var(--quiet)",
    "none": "none",
}


class Sketch:
    """A drawing that shows itself in a notebook and in the book.

    Parameters
    ----------
    height : of the drawing, in units of which the width has 360.
    alt : what the drawing shows, for those who do not see it.
    caption : what to see in it.
    """

    def __init__(self, height: float, alt: str, caption: str) -> None:
        self.height = height
        self.alt = alt
        self.caption = caption
        self.parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        colour: str = "ink",
        size: float = 13,
        anchor: str = "middle",
        bold: bool = False,
        italic: bool = False,
    ) -> Sketch:
        """Words on one line, centred at ``(x, y)``; ``_`` and ``^`` lower and raise a letter."""
        style = f'font-size="{size}" text-anchor="{anchor}" fill="{_COLOURS[colour]}"'
        style += ' font-weight="700"' * bold + ' font-style="italic"' * italic
        self.parts.append(f'<text x="{x:g}" y="{y + size * 0.35:g}" {style}>{_spans(words)}</text>')
        return self

    def line(
        self,
        *points: tuple[float, float],
        colour: str = "ink",
        width: float = 1.4,
        dash: bool = False,
        arrow: bool = False,
        fill: str = "none",
        opacity: float = 1.0,
    ) -> Sketch:
        """A line through points, with an arrow's head at its end if asked for."""
        where = " ".join(f"{x:.5g},{y:.5g}" for x, y in points)
        style = f'stroke="{_COLOURS[colour]}" stroke-width="{width}" stroke-linejoin="round"'
        style += ' stroke-dasharray="4 3"' * dash
        shade = f'fill="{_COLOURS[fill]}" fill-opacity="{opacity if fill != "none" else 0}"'
        self.parts.append(f'<polyline points="{where}" {shade} {style}/>')
        if arrow:
            self._head(points[-2], points[-1], colour)
        return self

    def _head(self, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
        along = (end[0] - start[0], end[1] - start[1])
        length = (along[0] ** 2 + along[1] ** 2) ** 0.5 or 1.0
        a, b = along[0] / length, along[1] / length
        back = (end[0] - 7 * a, end[1] - 7 * b)
        corners = [
            end,
            (back[0] - 3.5 * b, back[1] + 3.5 * a),
            (back[0] + 3.5 * b, back[1] - 3.5 * a),
        ]
        where = " ".join(f"{x:.5g},{y:.5g}" for x, y in corners)
        self.parts.append(f'<polygon points="{where}" fill="{_COLOURS[colour]}"/>')

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        colour: str = "ink",
        fill: str = "none",
        opacity: float = 0.2,
        round: float = 4,
        dash: bool = False,
    ) -> Sketch:
        """A rectangle whose corner is ``(x, y)``."""
        style = f'stroke="{_COLOURS[colour]}" stroke-width="1.4"' + ' stroke-dasharray="4 3"' * dash
        shade = f'fill="{_COLOURS[fill]}" fill-opacity="{opacity if fill != "none" else 0}"'
        place = f'x="{x:g}" y="{y:g}" width="{max(0.0, width):g}" height="{max(0.0, height):g}"'
        self.parts.append(f'<rect {place} rx="{round}" {shade} {style}/>')
        return self

    def dot(
        self,
        x: float,
        y: float,
        radius: float = 4,
        *,
        colour: str = "ink",
        fill: str = "ink",
        opacity: float = 1.0,
    ) -> Sketch:
        """A circle."""
        style = f'stroke="{_COLOURS[colour]}" stroke-width="1.4"'
        shade = f'fill="{_COLOURS[fill]}" fill-opacity="{opacity if fill != "none" else 0}"'
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" {shade} {style}/>')
        return self

    def node(
        self,
        x: float,
        y: float,
        words: str | Sequence[str],
        *,
        width: float = 56,
        colour: str = "ink",
        fill: str = "none",
        opacity: float = 0.2,
        size: float = 13,
        dash: bool = False,
    ) -> Sketch:
        """A box centred at ``(x, y)`` with lines of words in it."""
        lines = [words] if isinstance(words, str) else list(words)
        step = size * 1.25
        height = step * len(lines) + 8
        self.box(
            x - width / 2,
            y - height / 2,
            width,
            height,
            colour=colour,
            fill=fill,
            opacity=opacity,
            dash=dash,
        )
        for k, line in enumerate(lines):
            self.text(x, y + (k - (len(lines) - 1) / 2) * step, line, size=size)
        return self

    def _repr_html_(self) -> str:
        label = html.escape(self.alt, quote=True)
        picture = f'<svg viewBox="0 0 {WIDTH} {self.height:g}" role="img" aria-label="{label}">'
        picture += "".join(self.parts) + "</svg>"
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>"
        return f'{_STYLE}<figure class="shaplab-sketch">{picture}{caption}</figure>'

    def __repr__(self) -> str:
        return f"Sketch({self.alt})"


def _spans(words: str) -> str:
    """Escaped text in which ``x_1`` and ``x^2`` have a small letter, lowered or raised."""
    found = []
    rest = words
    while rest:
        mark = min((rest.find(sign) for sign in "_^" if rest.find(sign) >= 0), default=-1)
        if mark < 0 or mark + 1 >= len(rest):
            found.append(html.escape(rest))
            break
        shift = "3" if rest[mark] == "_" else "-5"
        back = "-3" if rest[mark] == "_" else "5"
        end = mark + 2
        small = rest[mark + 1]
        if small == "{":
            end = rest.index("}", mark) + 1
            small = rest[mark + 2 : end - 1]
        found.append(html.escape(rest[:mark]))
        found.append(f'<tspan dy="{shift}" font-size="75%">{html.escape(small)}</tspan>')
        found.append(f'<tspan dy="{back}">​</tspan>')
        rest = rest[end:]
    return "".join(found)
