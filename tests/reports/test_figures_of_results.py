"""Figures from whole results: public functions, files and the command; words beside them; rates that are quoted."""

import csv
import io
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from mnemoscope import api
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.roc import roc_counts
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.class_rows import ClassRow
from mnemoscope.audit.verdict.onemodel_describe import curve, pooled
from mnemoscope.audit.verdict.record_map import record_map
from mnemoscope.audit.verdict.sensitivity_rows import SensitivityRow
from mnemoscope.cli import app
from mnemoscope.reports import figures
from mnemoscope.reports.drawing import all_figures, subject_figures
from mnemoscope.reports.drawn import csv_text
from mnemoscope.reports.figure_rows import roc_lines, utility_points
from mnemoscope.reports.figures_out import parse_formats, write_figures
from mnemoscope.reports.schema import result_digest, to_json

INNER = ("bounds", "equivalence", "rates", "roc", "scores", "map", "classes", "sensitivity", "lineage")


def with_inner(factory, subject, *, hostile=""):
    """A subject with every row that a figure is drawn from."""
    rng = np.random.default_rng(0)
    few = Estimate(None, reason="suppressed: fewer than 10 audited records of this class")
    word = subject.verdict.word
    return replace(
        subject,
        by_class=(
            ClassRow(hostile or "cat", 300, factory.rate(30, 7200), factory.rate(60, 7200), factory.rate(70, 7200),
                     factory.rate(72, 7200), 1.0),
            ClassRow("dog", 291, factory.rate(900, 7000), factory.rate(50, 7000), factory.rate(68, 7000),
                     factory.rate(70, 7000), 1e-6),
            ClassRow("rare", 0, few, few, few, few),
        ),
        record_map=record_map("lira", rng.beta(5, 2, 600), rng.beta(4, 3, 600), rng.beta(6, 6, 600)),
        sensitivity=(
            SensitivityRow("bound", "2 x FPR", word, "B", True),
            SensitivityRow("bound", hostile or "3 x FPR", "INCONCLUSIVE", "B", False),
            SensitivityRow("primary", "rmia", word, "C", False, "the negative control (G2) was not run"),
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(factory):
    return factory.result([with_inner(factory, factory.subject(name)) for name in ("finetune", "retrain")])


@pytest.fixture(scope="module")
def drawn(result):
    return all_figures(result)


@pytest.mark.slow
def test_every_figure_of_the_report_is_there(drawn):
    keys = [figure.key for figure in drawn]
    assert keys == [
        "overview", "composition", "pareto-cost", "pareto-utility",
        *(f"s{number}-{name}" for number in (1, 2) for name in INNER),
    ]  # fmt: skip
    assert {figure.section for figure in drawn} == {"S0", "S4", "S5", "S7", "S8", "S9", "S12"}


@pytest.mark.slow
def test_words_beside_a_figure_are_made_from_its_numbers_and_differ(drawn):
    for figure in drawn:
        assert len({figure.title, figure.caption, figure.alt}) == 3
        assert figure.alt not in figure.caption
        assert any(c.isdigit() for c in figure.title + figure.alt), figure.key
        assert any(word in figure.caption for word in ("interval", "Each", "Share", "estimated", "choices")), figure.key
        assert ElementTree.fromstring(figure.svg).get("aria-label") == figure.alt
        assert len(figure.rows[0]) == len(figure.head)
        assert len(figure.values[0]) == len(figure.columns)


@pytest.mark.slow
def test_titles_state_the_finding(drawn):
    titles = {figure.key: figure.title for figure in drawn}
    assert titles["s1-classes"].startswith("1 of 2 classes lie above the bound; the highest rate is 12.9 % (dog)")
    assert (
        "1 of 2 other choices give the same word; bound on the true positive rate 3 x FPR" in titles["s1-sensitivity"]
    )
    assert "differences from retrained models lie within their margins" in titles["s2-equivalence"]
    assert titles["s1-map"].split(" ")[0].isdigit()


@pytest.mark.slow
def test_the_data_of_a_figure_are_those_of_the_result(result, drawn):
    figure = next(f for f in drawn if f.key == "s1-classes")
    rows = list(csv.DictReader(io.StringIO(figure.csv())))
    assert [row["class"] for row in rows] == ["dog", "cat", "rare"]  # the highest first, the suppressed one last
    assert float(rows[0]["tpr"]) == 900 / 7000
    assert (rows[2]["tpr"], rows[2]["records"]) == ("", "")
    table = next(f for f in drawn if f.key == "s1-map")
    counted = sum(int(row["records"]) for row in csv.DictReader(io.StringIO(table.csv())))
    assert counted == result.subjects[0].record_map.n_records
    curve_rows = list(csv.DictReader(io.StringIO(next(f for f in drawn if f.key == "s1-roc").csv())))
    lines = roc_lines(result, result.subjects[0])
    assert len(curve_rows) == sum(len(line.fpr) for line in lines)  # all points, not those of the page's table


def test_rates_that_are_quoted_come_from_exact_counts(result):
    subject = result.subjects[0]
    for line in roc_lines(result, subject):
        found = next(f for f in subject.findings if (f.attack, f.game, f.models) == ("lira", "forgetting", line.role))
        exact = next(t.tpr for t in found.tpr if t.fpr == result.plan.alpha and t.tail == "residual")
        assert line.marked == exact.value == exact.k / exact.n
        assert line.at(result.plan.alpha) == exact.value


@pytest.mark.parametrize("n", [400, 20_000])
def test_a_thinned_curve_cannot_be_told_from_the_whole_one(n):
    """At every false positive rate that 8 records carry, the drawn line is within 0.01 decades of the whole curve."""
    rng = np.random.default_rng(n)
    is_in = np.repeat([True, False], n)
    score = rng.normal(size=2 * n) + 1.2 * is_in
    found = curve("a", "forgetting", "after", pooled([score], is_in, np.arange(2 * n)), level=0.95)
    whole = roc_counts(score[is_in], score[~is_in])
    fx, fy = np.log10(np.maximum(whole.fp, 0.5) / n), np.log10(np.maximum(whole.tp, 0.5) / n)
    tx, ty = np.log10(np.maximum(found.fpr, 0.5 / n)), np.log10(np.maximum(found.tpr, 0.5 / n))
    supported = whole.fp >= 8
    distance = np.full(fx.size, np.inf)
    for a in range(tx.size - 1):
        dx, dy = tx[a + 1] - tx[a], ty[a + 1] - ty[a]
        t = np.clip(((fx - tx[a]) * dx + (fy - ty[a]) * dy) / max(dx * dx + dy * dy, 1e-300), 0, 1)
        distance = np.minimum(distance, np.hypot(fx - tx[a] - t * dx, fy - ty[a] - t * dy))
    assert distance[supported].max() <= 0.01
    assert tx.size < whole.fp.size / 4
    # Every point that is drawn is one of the whole curve: thinning leaves out, it never moves.
    points = set(zip((whole.fp / n).tolist(), (whole.tp / n).tolist(), strict=True))
    assert set(zip(found.fpr, found.tpr, strict=True)) <= points


DRAWN_FROM = {
    "draw_roc": {}, "draw_rates": {}, "draw_endpoints": {}, "draw_equivalence": {}, "draw_record_map": {},
    "draw_by_class": {}, "draw_lineage": {}, "draw_sensitivity": {}, "draw_composition": None, "draw_cost": None,
    "draw_utility": None,
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWN_FROM)
def test_each_is_drawn_on_the_users_axes_and_leaves_their_settings(result, name):
    draw, options = getattr(figures, name), DRAWN_FROM[name]
    settings = dict(mpl.rcParams)
    ax = Figure().add_subplot()
    given = draw(result, ax=ax) if options is None else draw(result, "retrain", ax=ax)
    assert given is ax
    assert ax.has_data() or ax.texts
    assert dict(mpl.rcParams) == settings


def test_a_subject_is_named_numbered_or_the_first(result, tmp_path):
    path = tmp_path / "result.json"
    path.write_bytes(to_json(result))
    first = [text.get_text() for text in figures.draw_rates(result).texts]
    assert [t.get_text() for t in figures.draw_rates(path, 0).texts] == first
    assert [t.get_text() for t in figures.draw_rates(str(tmp_path), "finetune").texts] == first
    assert [t.get_text() for t in figures.draw_rates(result, -1).texts] != first
    with pytest.raises(InvalidInput, match="'finetune', 'retrain'"):
        figures.draw_rates(result, "noop")
    with pytest.raises(InvalidInput, match="holds 2"):
        figures.draw_rates(result, 2)


def test_what_a_result_does_not_hold_is_said(factory):
    bare = factory.membership()
    for draw, what in (
        (figures.draw_record_map, "map of records"),
        (figures.draw_sensitivity, "sensitivity table"),
        (figures.draw_by_class, "rates by class"),
        (figures.draw_utility, "accuracy against"),
    ):
        with pytest.raises(InvalidInput, match=f"holds no {what}"):
            draw(bare)
    with pytest.raises(InvalidInput, match="no subject"):
        figures.draw_rates(replace(bare, subjects=()))


def test_distributions_take_an_axes_for_each_panel(result):
    panels = figures.draw_distributions(result)
    assert len(panels) == 3
    figure = Figure()
    given = figure.subplots(3, 1)
    assert figures.draw_distributions(result, axes=given) == list(given)
    with pytest.raises(InvalidInput, match="give one for each"):
        figures.draw_distributions(result, axes=given[:2])


@pytest.mark.slow
def test_saved_files_are_the_same_under_other_settings(result, tmp_path):
    first = {form: figures.save(figures.draw_rates(result), tmp_path / f"a.{form}", 80) for form in ("svg", "png")}
    with mpl.rc_context({"font.size": 20, "svg.hashsalt": None, "svg.fonttype": "path", "savefig.dpi": 30}):
        for form, path in first.items():
            again = figures.save(figures.draw_rates(result), tmp_path / f"b.{form}", 80)
            assert again.read_bytes() == path.read_bytes()
    text = first["svg"].read_text()
    assert "<text" in text
    assert "date" not in text.lower()
    assert first["png"].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("name", ["a.jpg", "a", "svg"])
def test_other_endings_are_refused(result, tmp_path, name):
    with pytest.raises(InvalidInput, match="must end in .svg, .png, .pdf"):
        figures.save(figures.draw_composition(result), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dpi", [0, 9, 100_000, True])
def test_a_resolution_that_makes_no_picture_is_refused(result, tmp_path, dpi):
    with pytest.raises(InvalidInput, match="dpi"):
        figures.save(figures.draw_composition(result), tmp_path / "a.png", dpi)


@pytest.mark.slow
def test_a_figure_of_the_users_keeps_their_type(tmp_path):
    with mpl.rc_context({"svg.fonttype": "path"}):
        ax = Figure().add_subplot()
        ax.set_title("mine")
        saved = figures.save(ax, tmp_path / "mine.svg").read_text()
    assert "<text" not in saved
    pdf = figures.save(ax, tmp_path / "mine.pdf").read_bytes()
    assert pdf == figures.save(ax, tmp_path / "again.pdf").read_bytes()


@pytest.mark.slow
def test_the_command_writes_each_figure_with_numbers_and_words(result, tmp_path):
    one = replace(result, subjects=result.subjects[:1])
    (tmp_path / "result.json").write_bytes(to_json(one))
    done = CliRunner().invoke(app, ["figures", str(tmp_path), "--format", "svg,png", "--dpi", "40"])
    assert done.exit_code == 0, done.output
    folder = tmp_path / "figures"
    names = {path.name for path in folder.iterdir()}
    keys = ["composition", *(f"s1-{name}" for name in INNER)]
    assert names == {f"{key}{end}" for key in keys for end in (".svg", ".png", ".csv", ".alt.txt")}
    source = result_digest((tmp_path / "result.json").read_bytes())
    for key in keys:
        words = (folder / f"{key}.alt.txt").read_text()
        assert source in words
        ElementTree.fromstring((folder / f"{key}.svg").read_text())


@pytest.mark.slow
def test_nothing_is_overwritten_unasked(result, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "mnemoscope.reports.figures_out.all_figures",
        lambda _: subject_figures(result, result.subjects[0], 1, only=("rates",)),
    )
    written = write_figures(result, tmp_path)
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in write_figures(result, tmp_path)] == before  # the same again is no change
    (tmp_path / "s1-rates.csv").write_text("mine")
    with pytest.raises(InvalidInput, match="--force"):
        write_figures(result, tmp_path)
    assert (tmp_path / "s1-rates.csv").read_text() == "mine"
    write_figures(result, tmp_path, force=True)
    assert (tmp_path / "s1-rates.csv").read_text().startswith("models,")


@pytest.mark.parametrize("text", ["", ",", "svg,gif", "../../x"])
def test_unknown_formats_are_refused(text):
    with pytest.raises(InvalidInput, match="allowed are svg, png, pdf"):
        parse_formats(text)


def test_a_result_that_is_none_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="cannot read"):
        api.figures(tmp_path)


@pytest.mark.slow
def test_hostile_names_neither_break_a_figure_nor_run_in_a_spreadsheet(factory, tmp_path):
    hostile = '=HYPERLINK("x")<script>\u202e$\\frac{' + "A" * 5_000
    subject = with_inner(factory, replace(factory.subject("finetune"), name=hostile), hostile=hostile)
    for figure in all_figures(factory.result([subject])):
        tree = ElementTree.fromstring(figure.svg)
        assert not [node for node in tree.iter() if node.tag.endswith("script")]
        for line in csv.reader(io.StringIO(figure.csv())):
            assert not any(cell.startswith("=") for cell in line)


def test_csv_cells_that_a_spreadsheet_would_run_are_quoted_out():
    lines = csv_text(("a",), (("=1",), ("+1",), ("-1",), ("@x",), (-1.5,), ("plain",))).splitlines()
    assert lines == ["a", "'=1", "'+1", "'-1", "'@x", "-1.5", "plain"]


def test_retrained_models_are_a_point_of_reference_beside_the_ways(result):
    points = utility_points(result)
    assert [p.role for p in points] == ["after", "after", "retrained"]
    assert points[-1].utility == 0.0
