"""A figure ready for a page with all that a reader may ask of it: caption, words in its place, the data behind it."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mnemoscope.reports import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Cell", "Drawn", "csv_text", "made"]

Cell = str | int | float | None


@dataclass(frozen=True)
class Drawn:
    """A figure ready for a page.

    Attributes:
        key: unique in the page.
        title: states the finding.
        caption: what is drawn, how the interval was made, n.
        svg: the ``<svg>`` element.
        head, rows: the data behind it, in words.
        alt: what a look at it would say; it differs from the caption.
        section: where it belongs: "S0" overview, "S4" data, "S5" models, "S7" forgotten records, "S8" worst case, "S9"
            side effects, "S12" sensitivity.
        columns, values: the data behind it as numbers, rates in [0, 1].
        draw: draws it again, for a file of its own; None where it cannot.
    """

    key: str
    title: str
    caption: str
    svg: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    alt: str = ""
    section: str = ""
    columns: tuple[str, ...] = ()
    values: tuple[tuple[Cell, ...], ...] = ()
    draw: "Callable[[], Axes] | None" = field(default=None, compare=False, repr=False)

    def csv(self) -> str:
        """The data as CSV (RFC 4180); numbers where there are any, else what the page shows."""
        return csv_text(self.columns, self.values) if self.columns else csv_text(self.head, self.rows)


def made(
    key: str,
    title: str,
    caption: str,
    draw: "Callable[[], Axes]",
    *,
    alt: str,
    section: str,
    head: tuple[str, ...],
    rows: tuple[tuple[str, ...], ...],
    columns: tuple[str, ...] = (),
    values: tuple[tuple[Cell, ...], ...] = (),
) -> Drawn:
    """Draw a figure and keep what belongs to it."""
    picture = svg.inline(svg.svg(draw), key=key, alt=alt)
    return Drawn(key, title, caption, picture, head, rows, alt, section, columns, values, draw)


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    r"""Write rows as CSV with CRLF ends; a text that a spreadsheet would take for a formula is quoted out.

    >>> csv_text(("a", "b"), (("=1+1", 0.5), ("x", None)))
    "a,b\r\n'=1+1,0.5\r\nx,\r\n"
    """
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(columns)
    writer.writerows([_plain(cell) for cell in row] for row in rows)
    return stream.getvalue()


def _plain(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
