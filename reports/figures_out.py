"""Every figure of a result as files of its own: the drawing, the numbers behind it, and words in its place."""

from collections.abc import Sequence
from pathlib import Path

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.reports.drawing import all_figures
from mnemoscope.reports.drawn import Drawn
from mnemoscope.reports.figures.files import DPI, FORMATS, figure_bytes
from mnemoscope.reports.schema import result_digest, write_whole
from mnemoscope.reports.svg import house_style

__all__ = ["FIGURES", "parse_formats", "write_figures"]

FIGURES = "figures"
"""The folder beside a result."""


def parse_formats(text: str) -> tuple[str, ...]:
    """Read a list such as "svg,png".

    Raises:
        InvalidInput: another format, or none.

    >>> parse_formats("svg, PNG")
    ('svg', 'png')
    """
    wanted = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    unknown = [form for form in wanted if form not in FORMATS]
    if unknown or not wanted:
        given = repr(unknown[0]) if unknown else "none"
        raise InvalidInput(f"format {given}: allowed are {', '.join(FORMATS)}, one or several with commas between")
    return wanted


def write_figures(
    result: AuditResult,
    folder: Path,
    *,
    formats: Sequence[str] = ("svg",),
    dpi: int = DPI,
    force: bool = False,
) -> tuple[Path, ...]:
    """Write every figure that a result has data for.

    Args:
        result: of the edition that the figures are for.
        folder: made when it is not there.
        formats: of the drawings, among ``FORMATS``.
        dpi: dots an inch, for pictures of dots.
        force: replace files that are there with other content.

    Returns:
        The files: for each figure its drawings, ``.csv`` and ``.alt.txt``. The same result gives the same bytes.

    Raises:
        InvalidInput: nothing to draw, a format or resolution that is not allowed, or a file that cannot be written.
    """
    drawn = all_figures(result)
    if not drawn:
        raise InvalidInput("this result holds nothing to draw: no findings, no endpoints, no models")
    source = result_digest(result)
    files: dict[Path, bytes] = {}
    for figure in drawn:
        for form in formats:
            files[folder / f"{figure.key}.{form}"] = _picture(figure, form, dpi)
        files[folder / f"{figure.key}.csv"] = figure.csv().encode("utf-8")
        files[folder / f"{figure.key}.alt.txt"] = _words(figure, source).encode("utf-8")
    taken = [path for path, data in files.items() if _differs(path, data)]
    if taken and not force:
        raise InvalidInput(
            f"{taken[0]} exists with other content; give another --out, or --force to replace {len(taken)} file(s)"
        )
    return tuple(write_whole(path, data) for path, data in files.items())


def _picture(figure: Drawn, form: str, dpi: int) -> bytes:
    assert figure.draw is not None  # figures of a result can be drawn again
    with house_style():
        return figure_bytes(figure.draw(), form, dpi=dpi)


def _words(figure: Drawn, source: str) -> str:
    return f"{figure.title}\n\n{figure.alt}\n\n{figure.caption}\n\nDrawn from the result {source}.\n"


def _differs(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() != data
    except FileNotFoundError:
        return False
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror or error}; give another --out folder") from error
