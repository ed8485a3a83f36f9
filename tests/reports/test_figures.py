import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from mnemoscope.reports import alt, figures
from mnemoscope.reports.drawing import overview, subject_figures
from mnemoscope.reports.facts import headline
from mnemoscope.reports.svg import inline, svg

LINE = figures.RocLine(
    "after", (0.001, 0.01, 0.1, 1), (0.02, 0.12, 0.4, 1), (0.01, 0.1, 0.3, 1), (0.03, 0.2, 0.5, 1), 900, 1000
)
ROWS = [
    figures.RateRow("after", "after", 0.12, 0.10, 0.14, "12 %"),
    figures.RateRow("gone", "retrained", None, None, None, "none"),
]
BOUNDS = [
    figures.BoundRow("P1", 0.12, 0.1, None, 0.02, "upper", "beyond", "12 %"),
    figures.BoundRow("P2", 0.001, -0.002, 0.004, 0.01, "both", "within", "0.1 points"),
]
DRAW = {
    "roc": lambda ax=None: figures.roc([LINE], alpha=0.01, ax=ax),
    "rates": lambda ax=None: figures.rates(ROWS, bound=0.02, ax=ax),
    "bounds": lambda ax=None: figures.against_bounds(BOUNDS, ax=ax),
}


@pytest.mark.slow
def test_importing_reports_loads_no_matplotlib():
    heavy = "('matplotlib', 'torch', 'scipy', 'pydantic')"
    modules = "mnemoscope.reports.html, mnemoscope.reports.console"
    code = f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", DRAW)
def test_draws_on_given_axes_and_leaves_global_state(name):
    settings = dict(mpl.rcParams)
    ax = Figure().add_subplot()
    assert DRAW[name](ax) is ax
    svg(DRAW[name])
    assert dict(mpl.rcParams) == settings
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


@pytest.mark.parametrize("name", DRAW)
def test_svg_is_byte_stable_under_other_settings(name):
    first = svg(DRAW[name])
    with mpl.rc_context({"font.size": 20, "lines.linewidth": 9, "svg.hashsalt": None, "svg.fonttype": "path"}):
        assert svg(DRAW[name]) == first
    ElementTree.fromstring(first)
    assert "<text" in first
    assert "date" not in first.lower()


def test_roc_draws_the_numbers():
    ax = figures.roc([LINE], alpha=0.01)
    curve = next(line for line in ax.lines if len(line.get_xdata()) == 4)
    np.testing.assert_allclose(curve.get_xdata(), LINE.fpr)
    np.testing.assert_allclose(curve.get_ydata(), LINE.tpr)
    grey = max(patch.get_x() + patch.get_width() for patch in ax.patches)
    assert grey == pytest.approx(8 / 1000)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert "after 12.0 %" in [t.get_text() for t in ax.texts]


def test_roc_marks_the_exact_rate_where_a_thinned_curve_would_miss():
    line = figures.RocLine("after", (0.001, 0.008, 0.1), (0.01, 0.08, 0.4), (0, 0, 0), (1, 1, 1), 9, 9, marked=0.1)
    assert line.at(0.01) == 0.1
    assert "after 10.0 %" in alt.roc_alt([line], 0.01)


def test_distributions_draw_shares_of_each_group():
    panel = figures.ScorePanel("after", (0, 1, 2), (10, 30), (100, 100))
    ax = figures.distributions([panel])[0]
    shares = [p.get_data().values for p in ax.patches]
    np.testing.assert_allclose(shares[0], [0.25, 0.75])
    np.testing.assert_allclose(shares[2], [0.5, 0.5])


def test_bounds_are_drawn_in_units_of_the_bound():
    ax = figures.against_bounds(BOUNDS)
    points = [line for line in ax.lines if len(line.get_xdata()) == 1]
    assert points[0].get_marker() == ">"  # six bounds away: off the scale
    assert points[1].get_xdata()[0] == pytest.approx(0.1)


def contrast(a: str, b: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colour_is_never_alone_and_reaches_three_to_one():
    styles = figures.STYLES.values()
    assert len({s.marker for s in styles}) == len({str(s.line) for s in styles}) == len(figures.STYLES)
    assert all(contrast(s.colour, "#ffffff") >= 3 for s in styles)
    assert contrast(figures.MUTED, figures.UNSUPPORTED) >= 4.5


@pytest.mark.slow
def test_inline_has_own_ids_alt_text_and_page_colours():
    element = inline(svg(DRAW["roc"]), key="s1-roc", alt='x < "y" & z')
    tree = ElementTree.fromstring(element)
    assert tree.get("aria-label") == 'x < "y" & z'
    assert tree.get("role") == "img"
    ids = [node.get("id") for node in tree.iter() if node.get("id")]
    assert ids
    assert all(i.startswith("s1-roc-") for i in ids)
    assert figures.STYLES["after"].colour not in element
    assert "var(--fig-after)" in element
    assert "url(#s1-roc-" in element


@pytest.mark.slow
def test_defect_29_over_forgetting_has_a_mark_and_words_of_its_own(factory):
    """Row 29: over-forgetting gives a tiny AUC and nothing that a one-tailed report would show."""
    subject = factory.subject("gradient_ascent", shift=-3.0)
    made = factory.result([subject, factory.subject("retrain")])
    h = headline(made, subject)
    assert h.after.value < made.plan.alpha  # the fault: the residual tail alone looks better than chance
    assert h.over.value > 10 * made.plan.alpha
    assert subject.verdict.direction == "over-forgotten"
    drawn = overview(made)
    assert any(label == "over-forgotten" and "%" in text for _, label, text in drawn.rows)
    names = [f.title for f in subject_figures(made, subject, 1)]
    assert "over-forgotten" in names[0]


def test_alt_texts_carry_the_numbers():
    assert "after 12.0 %" in alt.roc_alt([LINE], 0.01)
    assert "900 in" in alt.roc_alt([LINE], 0.01)
    assert "The bound is 2.0 %" in alt.rates_alt(ROWS, 0.02)
    assert "middle score 1.50" in alt.distributions_alt([figures.ScorePanel("after", (0, 1, 2), (1, 9), (5, 5))])
    assert alt.roc_alt([], None) == "ROC curves: none were recorded."
