"""Figures to SVG text: the same numbers give the same bytes, and ids and colours fit the page that holds them."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING

from mnemoscope.reports import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["house_style", "inline", "svg"]

STYLE: dict[str, object] = {
    "svg.hashsalt": "mnemoscope",
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.labelcolor": figures.INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": figures.INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "hatch.linewidth": 0.6,
    "path.simplify": True,
}

_THEMED = {
    figures.INK: "--fig-ink",
    figures.MUTED: "--fig-muted",
    figures.GRID: "--fig-grid",
    figures.BOUND: "--fig-bound",
    figures.FACE: "--fig-face",
    figures.UNSUPPORTED: "--fig-unsupported",
    "#00684d": "--fig-within",
    **{style.colour: f"--fig-{role}" for role, style in figures.STYLES.items()},
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw with the type and sizes of our figures; the user's settings are back as they were afterwards."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]
        yield


def svg(draw: "Callable[[], Axes]") -> str:
    """Draw and serialise one figure, byte-stable, with text as text.

    The user's Matplotlib settings neither reach the figure nor are changed by it.

    Args:
        draw: makes the axes (all functions of ``figures`` do, through a lambda).

    Returns:
        A standalone SVG document.
    """
    with house_style():
        figure = draw().get_figure(root=True)
        assert figure is not None
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _shorten(buffer.getvalue())


def _shorten(text: str) -> str:
    """Round coordinates to hundredths of a point: finer cannot be seen, and the file is half the size."""

    def rounded(match: re.Match[str]) -> str:
        return re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), match[0])

    text = re.sub(r' (?:d|x|y|width|height|points|transform)="[^"]*"', rounded, text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def inline(document: str, *, key: str, alt: str) -> str:
    """Make an SVG document fit into an HTML page: own ids, the page's colours, and a text alternative.

    Args:
        document: what :func:`svg` returned.
        key: prefix that makes its ids unique in the page; letters, digits and hyphens.
        alt: the text alternative.

    Returns:
        An ``<svg>`` element.
    """
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{key}-', body)
    body = re.sub(r"url\(#", f"url(#{key}-", body)
    body = re.sub(r'href="#', f'href="#{key}-', body)
    for colour, name in _THEMED.items():
        body = body.replace(colour, f"var({name})")
    body = body.replace("'DejaVu Sans'", "inherit").replace("\n", " ")
    body = re.sub(r" {2,}", " ", body)
    opening, rest = body.split(">", 1)
    opening = re.sub(r' (?:width|height)="[^"]*"', "", opening)
    opening += f' role="img" aria-label="{escape(alt, quote=True)}"'
    return f"{opening}>{rest.strip()}"
