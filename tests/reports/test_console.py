import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from mnemoscope.audit.verdict.result import Check
from mnemoscope.reports.console import render_first_screen

ORDER = ("Subject", "Records", "Sanity", "Verdict", "Counts", "Meaning", "Next", "Not run", "Report")


def screen(result, *, width: int = 80, terminal: bool = False, path: str | None = "out/report.html") -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system="standard" if terminal else None)
    render_first_screen(result, console=console, report_path=path)
    return file.getvalue()


@pytest.mark.parametrize("maker", ["result", "all_words", "one_model", "membership", "hostile"])
def test_order_width_and_plain_text(factory, maker):
    text = screen(getattr(factory, maker)())
    lines = text.splitlines()
    heads = [line[:12].strip() for line in lines if line[:12].strip() in ORDER]
    assert heads == list(ORDER)
    assert max(map(len, lines)) <= 80
    assert text.isascii()
    assert "\x1b" not in text


def test_what_each_part_says(factory):
    made = factory.one_model()
    text = " ".join(screen(made).split())
    subject = made.subjects[0]
    assert made.data.digest.removeprefix("sha256:")[:12] in text
    assert "0 exact and 0 near pairs" in text
    assert "forget 99.9 % ->" in text
    assert "111 of 600 (18.5 %; 95 % CI 15.5 to 21.8 %)" in text
    assert subject.verdict.sentence in text
    assert subject.verdict.meaning in text
    assert "tier B" in text
    for entry in made.not_run:
        assert entry.what in text
        assert entry.why in text


def test_table_has_a_row_for_every_subject(factory):
    made = factory.result()
    lines = screen(made).splitlines()
    for s in made.subjects:
        row = next(i for i, line in enumerate(lines) if line.startswith(s.name))
        assert s.verdict.word in lines[row]
        assert " of 14,400)" in lines[row]
        assert "95 % CI" in lines[row + 1]
        assert "(144)" in lines[row + 1]  # the retrained models' count


def test_every_word_has_its_next_step(factory):
    text = " ".join(screen(factory.all_words()).split())
    assert "an attack with more power" in text
    assert "Find out why the control failed" in text


def test_a_failed_sanity_check_is_shown_with_its_remedy(factory):
    made = factory.one_model()
    bad = Check(
        "sanity",
        "Better than chance?",
        "fail",
        "holdout accuracy 9.8 % with 10 classes",
        "labels or preprocessing are probably wrong",
    )
    text = " ".join(screen(replace(made, data=replace(made.data, checks=(bad,)))).split())
    assert "FAIL" in text
    assert "labels or preprocessing are probably wrong" in text


def test_terminal_may_be_wider_and_coloured_but_never_obeys_the_result(factory):
    text = screen(factory.hostile(), width=120, terminal=True)
    assert "\x1b[2J" not in text
    assert "\u202e" not in text
    assert "[bold red]" in text
    assert "\x1b[1" in screen(factory.result(), terminal=True)


def test_a_long_path_is_printed_whole(factory):
    path = "a/" * 60 + "report.html"
    assert path in screen(factory.membership(), path=path).splitlines()
    assert "not written" in screen(factory.membership(), path=None)


@pytest.mark.slow
def test_a_claimed_epsilon_is_told_once_with_what_the_attack_showed(factory):
    made = factory.result()
    row = replace(made.subjects[0].epsilons[0], fleet="DP-SGD, noise 1", claimed=2.5)
    shown = replace(row, bound=replace(row.bound, value=3.25), refuted=True)

    def text(*rows):
        return " ".join(screen(replace(made, subjects=tuple(replace(s, epsilons=rows) for s in made.subjects))).split())

    said = "DP-SGD, noise 1: epsilon 2.50 is claimed, lira shows at least 3.25 (confidence 95.0 %, delta 1e-05; "
    assert text(shown, row).count(said) == 1
    assert "this sample could show 5.60 at most): the claim is REFUTED" in text(shown)
    assert "not refuted, which confirms nothing" in text(row)
    assert "Privacy" not in text(replace(row, claimed=None))


def test_what_both_versions_give_away_stands_beside_the_counts(factory):
    made = factory.one_model()
    (subject,) = made.subjects
    finding = replace(subject.findings[0], attack="fall", game="difference-never", models="after", primary=False)
    finding = replace(finding, auc=replace(finding.auc, value=0.912))
    twin = replace(finding, models="retrained", auc=replace(finding.auc, value=0.905))

    def text(*findings):
        return " ".join(screen(replace(made, subjects=(replace(subject, findings=findings),))).split())

    said = text(*subject.findings, finding, twin)
    assert "Versions who holds both versions, forgotten against never-seen (no part of the verdict): AUC 0.912" in said
    assert "; retrained 0.905" in said
    assert "no retrained model beside it" in text(*subject.findings, finding)
    assert "Versions" not in text(*(f for f in subject.findings if f.game != "difference-never"))


@pytest.mark.slow
def test_requests_over_time_are_told_with_their_limits(factory):
    whole = screen(factory.successive())
    lines = [" ".join(line.split()) for line in whole.splitlines()]
    text = " ".join(lines)
    assert "Requests 3, one after another; TPR of lira at 1.0 % FPR" in text
    table = lines[lines.index("finetune") + 1 :]
    assert table[:3] == [
        "after all so far retrained newest first first, change",
        "1 of 3 4.0 % 1.0 % 3.5 % 5.0 % -",
        "[2.9, 5.4] [0.48, 1.8] [2.4, 4.8] [3.7, 6.5]",
    ]
    assert table[5:7] == [
        "3 of 3 4.0 % 1.0 % 3.5 % 9.0 % +4.0 points",
        "[3.3, 4.8] [0.68, 1.4] [2.4, 4.8] [7.3, 10.9] [+2.8, +5.2]",
    ]
    assert "1 of 3 - 1.0 % - - -" in text  # <b>odd</b> was never scored
    assert "test accuracy minus retrained, after 1: -1.0 points [-1.8, -0.22]; after 2: -2.0 points" in text
    assert max(map(len, whole.splitlines())) <= 80
    assert "Requests 3" not in " ".join(screen(factory.result()).split())


def test_audits_after_requests_are_told_apart_where_names_are_cut(factory):
    made = factory.successive()
    rows = [row for row in made.requests if row.subject == "finetune"]
    long = "a method of an uncommonly long name"
    rows = [replace(row, subject=long) for row in rows]
    subjects = tuple(replace(made.subjects[0], name=row.audit) for row in rows)
    text = screen(replace(made, subjects=subjects, requests=tuple(rows)))
    for number in (1, 2, 3):
        assert re.search(rf"^request {number} of 3 +(tier|no tier)", text, re.MULTILINE)
        assert f"a method o... long name, request {number} of 3: " in " ".join(text.split())
