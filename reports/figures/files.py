"""Figures as files: the same figure gives the same bytes, whatever the user's Matplotlib settings are."""

from pathlib import Path
from typing import TYPE_CHECKING

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.reports.figures.styles import OURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DPI", "FORMATS", "figure_bytes", "save"]

FORMATS = ("svg", "png", "pdf")
DPI = 300
"""Dots an inch of pictures, what journals ask for."""

LARGEST_DPI = 2400

_NO_DATES: dict[str, dict[str, str | None]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def figure_bytes(drawn: "Axes | Figure", form: str, *, dpi: int = DPI) -> bytes:
    """Encode a figure.

    Args:
        drawn: a figure, or axes in one.
        form: one of ``FORMATS``.
        dpi: dots an inch, for pictures of dots.

    Returns:
        The bytes of a file; the same figure gives the same bytes.

    Raises:
        InvalidInput: another format, or a resolution that makes no picture.
    """
    import io
    from contextlib import nullcontext

    import matplotlib
    from matplotlib.figure import Figure

    from mnemoscope.reports.svg import house_style

    if form not in FORMATS:
        raise InvalidInput(f"format {form!r}: allowed are {', '.join(FORMATS)}")
    if isinstance(dpi, bool) or not 10 <= dpi <= LARGEST_DPI:
        raise InvalidInput(f"dpi={dpi!r}: must lie between 10 and {LARGEST_DPI}")
    figure = drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)
    if figure is None:
        raise InvalidInput("these axes stand in no figure; draw on axes of a figure, or give none")
    # A figure of ours was drawn in our type, and some of its ticks are made only now; a figure of the user is theirs.
    ours = figure.get_label() == OURS
    buffer = io.BytesIO()
    with house_style() if ours else nullcontext(), matplotlib.rc_context({"svg.hashsalt": OURS}):
        extra = {"facecolor": "white"} if ours else {}
        figure.savefig(buffer, format=form, dpi=dpi, metadata=_NO_DATES[form], **extra)  # type: ignore[arg-type]
    return buffer.getvalue()


def save(drawn: "Axes | Figure", path: str | Path, dpi: int = DPI) -> Path:
    """Write a figure; the ending of the name says what it becomes: ``.svg``, ``.png`` or ``.pdf``.

    Args:
        drawn: a figure, or axes in one.
        path: the file; what is there is replaced.
        dpi: dots an inch, for pictures of dots.

    Returns:
        The path.

    Raises:
        InvalidInput: another ending, a resolution that makes no picture, or the file cannot be written.
    """
    from mnemoscope.reports.schema import write_whole

    target = Path(path)
    form = target.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        raise InvalidInput(f"{target.name}: the name must end in {', '.join('.' + one for one in FORMATS)}")
    return write_whole(target, figure_bytes(drawn, form, dpi=dpi))
