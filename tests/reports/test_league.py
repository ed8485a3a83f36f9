"""The league's places: both tails count, rates must be at alpha, and every attack must have been run on every row."""

from dataclasses import replace

import pytest

from mnemoscope.audit.statistics.trials import Estimate, Interval
from mnemoscope.audit.verdict.league import LeagueEntry, league_table
from mnemoscope.audit.verdict.result import NotRun
from mnemoscope.reports.league import render_league


def table(factory, *subjects):
    made = league_table([LeagueEntry("random", 0, factory.result(list(subjects)))], title="", digest="", level=0.95)
    return {row.subject: row for row in made.rows}


def test_a_model_that_gives_records_away_by_their_absence_is_behind_one_that_does_not(factory):
    rows = table(
        factory,
        factory.subject("exact", shift=0.0),
        factory.subject("overdone", shift=-3.0),
        factory.subject("leaky", shift=2.0),
    )
    assert rows["exact"].rank == (1, 1)
    assert rows["overdone"].over_forgotten.value > 0.2 > rows["overdone"].tpr.value
    assert rows["overdone"].rank[0] > 1
    assert list(rows)[0] == "exact"


def with_auc(one, value):
    """The same rates, but records that lie apart in bulk."""
    ci = Interval(value - 0.02, value + 0.02, 0.95, "two", "given")
    auc = Estimate(value, ci, n=600)
    return replace(one, findings=tuple(replace(f, auc=auc) if f.models == "after" else f for f in one.findings))


def test_clean_tails_do_not_lift_a_method_whose_auc_gives_the_bulk_of_the_records_away(factory):
    quiet, leaky = factory.subject("quiet", shift=0.0), factory.subject("leaky", shift=2.0)
    assert {n: r.rank for n, r in table(factory, quiet, leaky).items()} == {"quiet": (1, 1), "leaky": (2, 2)}
    rows = table(factory, with_auc(quiet, 0.97), with_auc(leaky, 0.9))
    assert rows["quiet"].rank == rows["leaky"].rank == (1, 2), "better in the tail, worse in bulk: a tie"
    assert rows["quiet"].auc.value == 0.97
    near = table(factory, with_auc(quiet, 0.92), with_auc(leaky, 0.9))
    assert near["quiet"].rank == near["leaky"].rank == (1, 2), "limits that overlap make no order of a tie"
    below = table(factory, with_auc(quiet, 0.03), with_auc(leaky, 0.9))
    assert below["quiet"].rank == (1, 2), "an AUC below one half gives as much away"
    assert below["quiet"].auc.low < 0.03 < below["quiet"].auc.high < 0.5
    apart = table(factory, with_auc(quiet, 0.6), with_auc(replace(quiet, name="other"), 0.9))
    assert (apart["quiet"].rank, apart["other"].rank) == ((1, 1), (2, 2))


def changed(one, change):
    return replace(one, findings=tuple(change(f) if f.models == "after" else f for f in one.findings))


def test_a_rate_that_no_threshold_reaches_is_none(factory):
    def flags_nobody(found):
        points = tuple(replace(p, tpr=Estimate(0.0), realised_fpr=Estimate(0.0)) for p in found.tpr)
        return replace(found, tpr=points)

    rows = table(
        factory, factory.subject("exact", shift=0.0), changed(factory.subject("constant", shift=0.0), flags_nobody)
    )
    assert rows["constant"].rank is None
    assert rows["constant"].unranked == "not measured"
    assert rows["exact"].rank == (1, 1)


def test_a_row_on_which_an_attack_could_not_be_run_has_no_place(factory):
    leaky = factory.subject("leaky", shift=2.0)
    without = replace(leaky, name="spared", findings=tuple(f for f in leaky.findings if f.attack != "lira"))
    rows = table(factory, leaky, without)
    assert rows["leaky"].rank == (1, 1)
    assert rows["spared"].rank is None
    assert rows["spared"].unranked == "lira could not be run on it"


def test_a_method_that_failed_on_one_seed_has_no_row(factory):
    first = LeagueEntry(
        "random", 0, factory.result([factory.subject("exact", shift=0.0), factory.subject("leaky", shift=2.0)])
    )
    second = LeagueEntry("random", 1, factory.result([factory.subject("exact", shift=0.0)]))
    made = league_table([first, second], title="", digest="", level=0.95)
    assert [row.subject for row in made.rows] == ["exact"]


@pytest.mark.parametrize("shown", [True, False])
def test_a_league_shows_the_words_or_withholds_them(factory, shown):
    subject = factory.subject("leaky", shift=2.0)
    entries = [LeagueEntry("random", 0, factory.result([subject]))]
    made = league_table(entries, title="", digest="", level=0.95, verdicts=shown)
    assert made.rows[0].words == ((subject.verdict.word,) if shown else ())
    assert (subject.verdict.word in render_league(made, figures=False)) == shown


def test_a_method_without_a_row_is_named_with_the_reason(factory):
    left = NotRun("scrub on random", "it diverged in epoch 3")
    result = factory.result([factory.subject("exact", shift=0.0)])
    result = replace(result, not_run=(*result.not_run, left))
    made = league_table([LeagueEntry("random", 7, result)], title="", digest="", level=0.95)
    assert made.notes == ("No row: scrub on random, seed 7: it diverged in epoch 3",)
    assert "it diverged in epoch 3" in render_league(made, figures=False)
