"""Figures behind a word: the numbers can be read back from what is drawn, and no mark depends on colour alone."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from mnemoscope.reports import figures
from mnemoscope.reports.svg import svg

EQUAL = [
    figures.EquivalenceRow("TPR (±1 points)", 0.002, -0.003, 0.007, 0.01, "within", "+0.20 points: within", "a"),
    figures.EquivalenceRow("TPR (±1 points)", 0.09, 0.05, 0.13, 0.01, "beyond", "+9.0 points: beyond", "b"),
    figures.EquivalenceRow("AUC (±0.05)", -0.04, -0.06, -0.02, 0.05, "undecided", "-0.040: undecided", "b"),
]
EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)
COUNTS = ((0, 0, 0, 0), (0, 9, 0, 0), (0, 4, 36, 0), (0, 0, 0, 16))
CLASSES = [
    figures.ClassBar("eight", (0.26, 0.16, 0.37), (0.0, 0.0, 0.01), (0.01, 0.003, 0.03), "n = 58: 26 %", True),
    figures.ClassBar("six", (0.02, 0.01, 0.05), None, None, "n = 61: 2 %"),
    figures.ClassBar("rare", None, None, None, "too few records"),
]
NODES = [
    figures.Node("data", "digits", ("1,797 records", "abc"), 0.5, 0),
    figures.Node("before", "before", ("72 models", "def"), 0.0, 1, "before"),
    figures.Node("after", "finetune", ("72 models", "123"), 0.0, 2, "after"),
    figures.Node("retrained", "retrained", ("A: 72", "B: 72", "C: 72"), 1.0, 3, "retrained"),
    figures.Node("shadow", "reference models", ("8 models",), 1.0, 4),
]
ARROWS = [
    figures.Arrow("data", "before", "trained"),
    figures.Arrow("before", "after", "finetune"),
    figures.Arrow("data", "retrained", "trained without"),
    figures.Arrow("data", "shadow", "of the attacker"),
]
CELLS = [
    figures.GridCell("Bound", "1.5 x FPR", "INCONCLUSIVE"),
    figures.GridCell("Bound", "2 x FPR", "WITHIN BOUND", actual=True),
    figures.GridCell("Bound", "3 x FPR", "OUTSIDE BOUND"),
    figures.GridCell("Attack", "modified_entropy_by_class", "NOT ASSESSED", note=" *"),
]
USEFUL = [
    figures.UtilityPoint("finetune", 0.01, 0.09, 0.07, 0.11),
    figures.UtilityPoint("worse", 0.0, 0.2, None, None),
    figures.UtilityPoint("ascent", -0.23, 0.012, 0.01, 0.016, fit=False),
    figures.UtilityPoint("retrained models", 0.0, 0.009, 0.007, 0.012, role="retrained"),
]
SETS = [figures.SetBar("audited", 600), figures.SetBar("test", 297)]
DRAW = {
    "equivalence": lambda ax=None: figures.equivalence(EQUAL, ax=ax),
    "map": lambda ax=None: figures.record_map(EDGES, COUNTS, retrained=(0, 30, 35, 0), ax=ax),
    "classes": lambda ax=None: figures.by_class(CLASSES, bound=0.02, ax=ax),
    "lineage": lambda ax=None: figures.lineage(NODES, ARROWS, ax=ax),
    "sensitivity": lambda ax=None: figures.sensitivity(CELLS, ax=ax),
    "utility": lambda ax=None: figures.utility(USEFUL, margin=0.02, chance=0.01, ax=ax),
    "composition": lambda ax=None: figures.composition(SETS, ax=ax),
}


@pytest.mark.parametrize("name", DRAW)
def test_draws_on_given_axes(name):
    ax = Figure().add_subplot()
    assert DRAW[name](ax) is ax


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAW)
def test_the_same_numbers_give_the_same_bytes(name):
    assert svg(DRAW[name]) == svg(DRAW[name])


def lines_of(ax, points):
    return [line for line in ax.lines if len(line.get_xdata()) == points]


def texts_of(ax):
    return [text.get_text() for text in ax.texts]


def test_equivalence_is_drawn_in_margins_with_outcomes():
    ax = DRAW["equivalence"]()
    intervals = [tuple(line.get_xdata()) for line in lines_of(ax, 2) if line.get_linewidth() == 2.2]
    assert intervals[0] == pytest.approx((-0.3, 0.7))
    assert intervals[2] == pytest.approx((-1.2, -0.4))
    marks = lines_of(ax, 1)
    assert marks[0].get_xdata()[0] == pytest.approx(0.2)
    assert marks[1].get_marker() == ">"  # nine margins away: off the scale, its text has the number
    assert "+9.0 points: beyond" in texts_of(ax)
    zone = next(patch for patch in ax.patches if patch.get_width() == 2)
    assert (zone.get_x(), zone.get_x() + zone.get_width()) == (-1, 1)
    assert {"a", "b"} <= set(texts_of(ax))


def test_the_map_gives_counts_back():
    ax = DRAW["map"]()
    dots = ax.collections[0]
    found = {
        tuple(at): size for at, size in zip(np.round(dots.get_offsets(), 4).tolist(), dots.get_sizes(), strict=True)
    }
    assert set(found) == {(0.375, 0.375), (0.625, 0.375), (0.625, 0.625), (0.875, 0.875)}
    largest = found[0.625, 0.625]
    for at, count in (((0.375, 0.375), 9), ((0.625, 0.375), 4), ((0.875, 0.875), 16)):
        assert found[at] / largest == pytest.approx(count / 36)
    strip = ax.child_axes[0]
    shares = [patch.get_data().values for patch in strip.patches]
    assert shares[0] == pytest.approx(np.array([0, 13, 36, 16]) / 65)
    assert shares[1] == pytest.approx(np.array([0, 30, 35, 0]) / 65)


def test_an_empty_map_is_drawn_empty():
    ax = figures.record_map(EDGES, [[0] * 4] * 4)
    assert len(ax.collections[0].get_offsets()) == 0


def test_classes_give_rates_and_intervals_back():
    ax = DRAW["classes"]()
    intervals = sorted(tuple(line.get_xdata()) for line in lines_of(ax, 2) if line.get_linewidth() == 2.0)
    assert intervals == [(0.003, 0.03), (0.01, 0.05), (0.16, 0.37)]
    marks = {(line.get_marker(), float(line.get_xdata()[0]), line.get_markerfacecolor()) for line in lines_of(ax, 1)}
    assert (figures.STYLES["after"].marker, 0.26, figures.STYLES["after"].colour) in marks
    assert (figures.STYLES["after"].marker, 0.0, figures.FACE) in marks  # the other tail is open
    assert (figures.STYLES["retrained"].marker, 0.01, figures.STYLES["retrained"].colour) in marks
    bold = [text.get_text() for text in ax.texts if text.get_fontweight() == "bold"]
    assert bold == ["eight"]
    assert "too few records" in texts_of(ax)


def test_the_lineage_names_every_box_and_no_box_lies_on_another():
    ax = DRAW["lineage"]()
    words = texts_of(ax)
    for node in NODES:
        assert node.title in words
        assert set(node.lines) <= set(words)
    assert {arrow.text for arrow in ARROWS} <= set(words)
    boxes = [(p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height()) for p in ax.patches]
    assert len(boxes) == len(NODES)
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_the_grid_marks_words_by_shape_and_frames_what_was_planned():
    ax = DRAW["sensitivity"]()
    shapes = [(line.get_marker(), line.get_markerfacecolor() == figures.FACE) for line in ax.lines]
    assert shapes == [("s", False), ("o", False), ("^", False), ("o", True)]  # square, circle, triangle, ring
    assert len(ax.patches) == 1
    assert {"1.5 x FPR", "modified_entropy_by_class *", "inconclusive", "not assessed"} <= set(texts_of(ax))


def test_the_grid_has_room_for_every_cell():
    many = [figures.GridCell("Attack", f"attack number {i}", "WITHIN BOUND") for i in range(40)]
    ax = figures.sensitivity(many)
    places = {(round(float(line.get_xdata()[0]), 3), float(line.get_ydata()[0])) for line in ax.lines}
    assert len(places) == 40
    bottom, top = ax.get_ylim()
    assert all(top < y < bottom for _, y in places)


def test_accuracy_against_leakage_and_its_frontier():
    assert [p.label for p in figures.useful_frontier(USEFUL)] == ["finetune"]  # neither unfit nor a point of reference
    ax = DRAW["utility"]()
    marks = {(float(x.get_xdata()[0]), float(x.get_ydata()[0]), x.get_marker()) for x in lines_of(ax, 1)}
    assert (0.01, 0.09, "s") in marks
    assert (0.0, 0.009, "^") in marks
    hollow = [x for x in lines_of(ax, 1) if x.get_markerfacecolor() == figures.FACE]
    assert [float(x.get_xdata()[0]) for x in hollow] == [-0.23]
    assert {"finetune", "worse", "ascent", "retrained models", "margin -2"} <= set(texts_of(ax))


def test_names_of_points_at_one_place_do_not_lie_on_each_other():
    twins = [figures.UtilityPoint(f"method {i}", 0.001, 0.1, None, None) for i in range(6)]
    ax = figures.utility(twins)
    heights = sorted(text.get_position()[1] for text in ax.texts if text.get_text().startswith("method"))
    assert min(np.diff(heights)) >= 0.04


def test_bars_are_as_long_as_sets_are_large():
    ax = DRAW["composition"]()
    assert [patch.get_width() for patch in ax.patches] == [600, 297]
    assert ax.get_xlim()[0] == 0


def grey(colour):
    """Relative luminance: at 0.3 and below a mark has a contrast of 3 to 1 on white."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_in_grey_every_word_and_role_still_has_a_sign_of_its_own():
    """What colour says is said by shape too; and where a mark is filled, it stands out from paper in grey."""
    marks = [(marker, grey(fill) > 0.9) for marker, fill in figures.WORD_MARKS.values()]
    assert len(set(marks)) == len(figures.WORD_MARKS)
    assert all(grey(fill) <= 0.3 or fill == figures.FACE for _, fill in figures.WORD_MARKS.values())
    assert all(grey(style.colour) <= 0.3 for style in figures.STYLES.values())


def test_a_long_list_of_classes_keeps_its_place():
    bars = [figures.ClassBar(f"class {i}", (0.01, 0.0, 0.02), None, None, "n = 10") for i in range(60)]
    ax = figures.by_class(bars)
    assert ax.get_figure().get_size_inches()[1] > 20
    ys = [line.get_ydata()[0] for line in lines_of(ax, 1)]
    assert len(set(ys)) == 60
