"""One page over many audits: what it shows, what it refuses to join, and what no file under a folder can do to it."""

import base64
import hashlib
import os
import re
import sys
from dataclasses import replace
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.declared import Declared
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.cli import app
from mnemoscope.reports.history import read_history, render_history, write_history
from mnemoscope.reports.history_find import Found, Limit, Unread, find_results
from mnemoscope.reports.schema import result_digest, to_json
from mnemoscope.reports.trend import TrendPoint, trend, trend_alt

TODAY = date(2026, 11, 21)
VOID = {"meta", "br", "link", "img", "hr", "input", "circle", "path", "rect", "use"}


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self.inside: list[str] = []
        self.cell = False
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("style", "script"):
            self.inside.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = False
        if tag in ("style", "script"):
            assert self.inside.pop() == tag

    def handle_data(self, data):
        if not self.inside:
            self.words.append(data)
            if self.cell and self.rows[-1]:
                self.rows[-1][-1] = re.sub(r"\s+", " ", self.rows[-1][-1] + data).strip()

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == name]


@pytest.fixture(scope="module")
def one(factory):
    """A small result of one subject; what changes from audit to audit is given."""
    made = {"finetune": factory.subject("finetune"), "retrain": factory.subject("retrain")}

    def build(day="2026-05-01", *, subject="finetune", rate=None, over=None, model=None, due=None, **changes):
        it = replace(
            made[subject],
            endpoints=tuple(e for e in made[subject].endpoints if e.id == "P1" and e.primary and rate is None)
            or (replace(made[subject].endpoints[0], estimate=Estimate(None, reason="left out")),),
            findings=tuple(f for f in made[subject].findings if f.primary and f.game == "forgetting"),
            curves=(),
            distributions=(),
        )
        if rate is not None:
            tpr = tuple(
                replace(t, tpr=factory.rate(*(rate if t.tail == "residual" else over or rate)))
                if t.fpr == factory.ALPHA
                else t
                for t in it.findings[0].tpr
            )
            it = replace(it, findings=(replace(it.findings[0], tpr=tpr), *it.findings[1:]))
        if model is not None:
            it = replace(it, models=tuple(replace(m, digest=factory.digest(model, m.name)) for m in it.models))
        declared = None if due is None else Declared(next_test_due=due)
        made_at = f"{day}T10:00:00Z" if re.fullmatch(r"\d{4}-\d\d-\d\d", day) else day
        return replace(factory.result([it]), created_at=made_at, declared=declared, **changes)

    return build


def put(root: Path, place: str, result, *names: str) -> Path:
    folder = root / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_bytes(to_json(result))
    for name in names:
        (folder / name).write_text("a report", encoding="utf-8")
    return folder


def page_of(root: Path, today: date = TODAY, **options) -> Page:
    return Page(render_history(read_history(root, today=today), **options))


def test_a_row_says_what_the_result_says(tmp_path, one, factory):
    result = one(due="2027-01-02", model="v1")
    folder = put(tmp_path, "runs/a b#", result, "report.html", "summary.pdf", "unrelated.txt")
    page = page_of(tmp_path, figures=False)
    (row,) = [cells for cells in page.rows if cells and cells[0].startswith("2026-05-01")]
    found = next(t.tpr for t in result.subjects[0].findings[0].tpr if t.fpr == 0.01 and t.tail == "residual")
    endpoint = next(e for e in result.subjects[0].endpoints if e.id == "P1" and "residual" in e.part)
    assert row[0] == "2026-05-0110:00 UTC"
    assert result.title in row[1]
    assert "digits, procedure, internal edition" in row[1]
    assert result_digest(result)[7:19] in row[1]
    assert row[2] == "finetune"
    assert row[3].startswith(factory.digest("v1", "after finetune")[7:19])
    assert "72 models, after" in row[3]
    assert "OUTSIDE BOUNDtier B" in row[4]
    assert f"{found.k:,} of 14,400" in row[5] or f"{endpoint.estimate.k:,} of 14,400" in row[5]
    assert "lira, at 1.0 % FPR; bound 2.0 %" in row[5]
    assert "95 % CI" in row[6]
    assert row[7].startswith(Policy().digest[7:19])
    assert "alpha 1.0 %" in row[7]
    assert row[8] == "2027-01-02"
    links = [a["href"] for a in page.all("a")]
    assert "./runs/a%20b%23/report.html" in links
    assert "./runs/a%20b%23/summary.pdf" in links
    assert not any("unrelated" in link for link in links)
    assert (folder / "report.html").exists()


def test_the_policy_that_decided_is_named_by_its_own_digest(tmp_path, one):
    from mnemoscope.audit.verdict.policy_record import PolicyRecord

    made = one()
    own = "sha256:" + "ab" * 32
    put(tmp_path, "a", replace(made, plan=replace(made.plan, decided=PolicyRecord(own, "an owner"))))
    put(tmp_path, "b", replace(made, title="other", plan=replace(made.plan, policy={"odd": 1})))
    digests = {audit.title: audit.policy for audit in read_history(tmp_path, today=TODAY).audits}
    assert digests[made.title] == own
    assert digests["other"] == "sha256:" + hashlib.sha256(b'{"odd":1}').hexdigest()


@pytest.mark.parametrize(
    ("day", "due", "today", "state"),
    [
        ("2026-05-01", None, TODAY, "not declared"),
        ("2026-05-01", "2026-11-20", TODAY, "overdue"),
        ("2026-05-01", "2026-11-21", TODAY, "2026-11-21"),
        ("2026-05-01", "2026-11-20", date(2026, 11, 20), "2026-11-20"),
        ("no date", "2026-11-20T08:00:00Z", TODAY, "overdue"),
    ],
)
def test_overdue_is_held_against_the_day_given(tmp_path, one, day, due, today, state):
    put(tmp_path, "a", one(day, due=due))
    page = page_of(tmp_path, today, figures=False)
    cell = next(cells for cells in page.rows if "tier B" in " ".join(cells))[8]
    assert (state in cell) is True
    assert ("overdue" in cell) is (state == "overdue")
    assert f"held against {today}" in page.text


def test_a_later_audit_of_the_same_subject_and_data_is_the_test_that_was_due(tmp_path, one, factory):
    put(tmp_path, "old", one("2026-05-01", due="2026-06-01"))
    later = one("2026-07-01")
    put(tmp_path, "new", later)
    states = lambda today: [  # noqa: E731
        row.due.state for audit in read_history(tmp_path, today=today).audits for row in audit.rows if row.due
    ]
    assert states(TODAY) == ["superseded"]
    assert states(date(2026, 6, 15)) == ["overdue"], "on that day the later audit had not been made"
    assert "after the day given" in page_of(tmp_path, date(2026, 6, 15), figures=False).text
    put(tmp_path, "new", replace(later, data=replace(later.data, digest=factory.digest("other"))))
    assert states(TODAY) == ["overdue"], "other records are another test"
    put(tmp_path, "new", one("2026-07-01", subject="retrain"))
    assert states(TODAY) == ["overdue"], "another subject is another test"


def history_points(root: Path, today: date = TODAY):
    from mnemoscope.reports import history

    return history._trends(read_history(root, today=today), figures=False)


def test_only_audits_that_asked_in_the_same_way_are_joined(tmp_path, one, factory):
    first, second = one("2026-05-01", model=1, rate=(1440, 14_400)), one("2026-06-01", model=2, rate=(288, 14_400))
    put(tmp_path, "1", first)
    put(tmp_path, "2", second)
    (told,) = history_points(tmp_path)
    assert [row[1] for row in told["figure"].rows] == ["A", "A"]
    assert "2.0 % picked out at 1.0 % FPR in the newest audit, below the 10.0 % of 2026-05-01" in told["figure"].title
    for change in (
        replace(second.plan, digest=factory.digest("another plan")),
        replace(second.plan, policy={**second.plan.policy, "tpr_ratio": 3.0}),
    ):
        put(tmp_path, "2", replace(second, plan=change))
        (told,) = history_points(tmp_path)
        assert [row[1] for row in told["figure"].rows] == ["A", "B"]
        assert "none before it was made with the same plan and policy" in told["figure"].title
        assert "not joined" in told["figure"].caption
        assert [way["letter"] for way in told["ways"]] == ["A", "B"]
    put(tmp_path, "2", replace(second, data=replace(second.data, digest=factory.digest("other data"))))
    assert history_points(tmp_path) == []


@pytest.mark.parametrize(
    ("then", "now", "word"), [(300, 330, "not told apart from"), (144, 900, "above"), (900, 144, "below")]
)
def test_a_title_says_only_what_the_intervals_bear(tmp_path, one, then, now, word):
    put(tmp_path, "1", one("2026-05-01", rate=(then, 14_400), over=(10, 14_400)))
    put(tmp_path, "2", one("2026-06-01", rate=(now, 14_400), over=(10, 14_400)))
    (told,) = history_points(tmp_path)
    assert f"newest audit, {word} the" in told["figure"].title


def test_the_other_tail_is_named_where_it_is_the_larger(tmp_path, one):
    put(tmp_path, "1", one("2026-05-01", rate=(10, 14_400), over=(2000, 14_400)))
    put(tmp_path, "2", one("2026-06-01", rate=(12, 14_400), over=(1440, 14_400)))
    (told,) = history_points(tmp_path)
    assert "(over-forgotten 10.0 %)" in told["figure"].title
    assert "1,440 of 14,400" in told["figure"].rows[1][3]


def test_editions_of_one_audit_are_one_point_and_equal_bytes_are_one_row(tmp_path, one):
    made = one("2026-05-01")
    put(tmp_path, "a", made)
    put(tmp_path, "b/bundle", made, "report.html")
    put(tmp_path, "c", replace(made, edition="restricted"))
    history = read_history(tmp_path, today=TODAY)
    assert len(history.audits) == 2
    (twice,) = [audit for audit in history.audits if audit.copies]
    assert (twice.place, twice.copies) == ("b/bundle", ("a",)), "the place with a report is the one to link"
    assert history_points(tmp_path) == [], "one audit in two editions is no trend"


def points(groups: str, bound: float | None = 0.02) -> list[TrendPoint]:
    return [
        TrendPoint(f"2026-05-{i + 1:02d}", f"m{i}", 0.01 * (i + 1), 0.005, 0.1, None, None, None, group, bound)
        for i, group in enumerate(groups)
    ]


def test_the_figure_joins_neighbours_of_one_group_alone():
    lines = [line for line in trend(points("AABBA")).lines if line.get_color() == "#d55e00" and line.get_ls() != "None"]
    assert [list(line.get_xdata()) for line in lines] == [[0, 1], [2, 3], [4]]
    assert [list(line.get_ydata()) for line in lines][0] == [0.01, 0.02]
    letters = [text.get_text() for text in trend(points("AABBA")).texts if len(text.get_text()) == 1]
    assert letters == list("AABBA")
    assert not [text for text in trend(points("AA")).texts if len(text.get_text()) == 1]


def test_the_figure_draws_every_interval_and_the_bound():
    drawn = trend(points("AAA"))
    ends = [segment for c in drawn.collections for segment in getattr(c, "get_segments", list)()]
    assert len(ends) == 3
    assert {tuple(segment[:, 1]) for segment in ends} == {(0.005, 0.1)}
    assert [t.get_text() for t in drawn.texts] == ["bound 2.0 %"]
    assert drawn.get_ylim()[1] > 0.1


def test_alternative_texts_stay_short_and_name_the_ends():
    assert trend_alt(points("AB")).count("plan") == 2
    many = trend_alt(points("A" * 28))
    assert "28 audits" in many
    assert "first 2026-05-01" in many
    assert "last 2026-05-28" in many
    assert len(many) < 600


def test_what_cannot_be_read_is_listed_and_the_rest_is_shown(tmp_path, one):
    good = put(tmp_path, "good", one())
    for place, data in {
        "cut": (good / "result.json").read_bytes()[:200],
        "newer": b'{"schema_version":"9.0.0"}',
        "other": b"[1]",
        "deep": b"[" * 100_000,
        "nan": b'{"schema_version":"1.5.0","title":NaN}',
        "big": b" " * 2_000_000,
    }.items():
        (tmp_path / place).mkdir()
        (tmp_path / place / "result.json").write_bytes(data)
    (tmp_path / "folder/result.json").mkdir(parents=True)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/result.json").symlink_to(good / "result.json")
    os.mkfifo(tmp_path / "linked.fifo")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe/result.json")
    (tmp_path / ".mnemoscope").mkdir()
    (tmp_path / ".mnemoscope/result.json").write_bytes(b"of the store")
    found = list(find_results(tmp_path, Limit(size_bytes=1_000_000)))
    assert [f.place for f in found if isinstance(f, Found)] == ["good"]
    reasons = {f.place: f.reason for f in found if isinstance(f, Unread)}
    assert set(reasons) == {
        "cut/result.json", "newer/result.json", "other/result.json", "deep/result.json", "nan/result.json",
        "big/result.json", "folder/result.json", "loop", "linked/result.json", "pipe/result.json",
    }  # fmt: skip
    for place, said in {
        "cut": "not a JSON document", "newer": "newer release", "big": "2,000,000 bytes", "pipe": "no regular file",
        "folder": "a folder", "linked": "links are not followed",
    }.items():  # fmt: skip
        assert said in reasons[f"{place}/result.json"]
    page = page_of(tmp_path, figures=False)
    assert "newer/result.json" in page.text
    assert str(tmp_path) not in page.text


def test_a_file_that_may_not_be_read_is_no_end(tmp_path, one, monkeypatch):
    put(tmp_path, "a", one())
    put(tmp_path, "b", one("2026-06-01"))
    real = os.open

    def refuse(path, *args, **options):
        if Path(path).parent.name == "a":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    history = read_history(tmp_path, today=TODAY)
    assert [u.reason for u in history.unread] == ["cannot be read (Permission denied)"]
    assert [audit.place for audit in history.audits] == ["b"]


def test_a_search_ends_where_it_must_and_says_so(tmp_path, one):
    for i in range(4):
        put(tmp_path, f"{i}", one(f"2026-05-0{i + 1}"))
    put(tmp_path, "a/b/c", one("2026-06-01"))
    assert [f.place for f in find_results(tmp_path, Limit(depth=1)) if isinstance(f, Unread)] == ["a/b"]
    some = list(find_results(tmp_path, Limit(results=2)))
    assert [isinstance(f, Found) for f in some] == [True, True, False]
    assert "2 results were read" in some[-1].reason
    few = list(find_results(tmp_path, Limit(entries=6)))
    assert "more than 6" in few[-1].reason
    assert sum(isinstance(f, Found) for f in few) < 5


def test_hostile_texts_and_names_stay_texts(tmp_path, one, factory):
    evil = factory.HOSTILE
    made = one()
    subject = replace(made.subjects[0], name=evil, method="$\\frac{x}$")
    group = tuple(replace(m, digest="$^\u202e<b>") for m in subject.models)
    for i, day in enumerate(("2026-05-01T10:00:00Z", "2026-06-01T10:00:00+02:00")):
        put(
            tmp_path,
            f'javascript:alert({i})"><img src=x>',
            replace(
                made,
                title=evil,
                created_at=day,
                data=replace(made.data, name=evil),
                subjects=(replace(subject, models=group),),
            ),
            "report.html",
        )
    put(tmp_path, "odd", replace(made, created_at="<img>9999"))
    if sys.platform == "linux":
        os.mkdir(os.fsencode(tmp_path) + b"/\xff\xfe")
        with open(os.fsencode(tmp_path) + b"/\xff\xfe/result.json", "wb") as file:
            file.write(to_json(one("2026-07-01")))
    text = render_history(read_history(tmp_path, today=TODAY))
    page = Page(text)
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert not page.all("b") or all(not attrs for attrs in page.all("b"))
    assert "\u202e" not in text
    assert "A" * 200 not in text
    for link in page.all("a"):
        assert re.match(r"(\./|\.\./|#)", link["href"] or ""), link
    assert any("javascript%3Aalert%280%29" in (link["href"] or "") for link in page.all("a"))
    assert any("%FF%FE/result.json" in (link["href"] or "") for link in page.all("a"))
    text.encode("utf-8")


def test_the_page_is_complete_without_its_script_and_allows_no_other(tmp_path, one):
    put(tmp_path, "a", one(due="2026-06-01"), "report.html")
    text = render_history(read_history(tmp_path, today=TODAY))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert policy is not None
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy[1].replace("&#39;", "'")
    assert "default-src 'none'" in policy[1]
    assert "http" not in script[1]
    without = Page(text.replace(script[0], ""))
    assert "OUTSIDE BOUND" in without.text
    assert "overdue" in without.text
    assert not without.all("button"), "what the script needs, the script makes"
    assert [tools for tools in without.all("div") if tools.get("id") == "tools"][0].keys() >= {"hidden"}
    assert not [a for tag, a in without.tags for key in a if key in ("src", "onclick") or key.startswith("on")]


def test_equal_files_and_days_give_equal_bytes_whatever_the_order_of_their_making(tmp_path, one):
    results = [one(f"2026-0{i}-01", model=i, rate=(100 * i, 14_400)) for i in range(1, 5)]
    for name, order in (("x", range(4)), ("y", reversed(range(4)))):
        for i in order:
            put(tmp_path / name, f"{i}", results[i], "report.html")
    pages = [write_history(tmp_path / name, today=TODAY)[0].read_bytes() for name in "xy"]
    assert pages[0] == pages[1]
    again = write_history(tmp_path / "x", today=TODAY)[0].read_bytes()
    assert again == pages[0], "its own index.html is no audit"
    assert write_history(tmp_path / "x", today=TODAY + timedelta(days=1))[0].read_bytes() != pages[0]


def test_nothing_that_is_not_ours_is_replaced(tmp_path, one):
    put(tmp_path, "a", one())
    page = tmp_path / "index.html"
    page.write_text("<p>mine</p>", encoding="utf-8")
    with pytest.raises(InvalidInput, match="--force"):
        write_history(tmp_path, today=TODAY)
    assert page.read_text(encoding="utf-8") == "<p>mine</p>"
    write_history(tmp_path, today=TODAY, force=True)
    write_history(tmp_path, today=TODAY)
    with pytest.raises(InvalidInput, match="is a folder"):
        write_history(tmp_path, out=tmp_path / "a", today=TODAY)


def test_links_hold_from_wherever_the_page_lies(tmp_path, one):
    put(tmp_path, "runs/a", one(), "report.html")
    out = tmp_path / "site/deep/page.html"
    file, _ = write_history(tmp_path / "runs", out=out, today=TODAY)
    links = [a["href"] for a in Page(file.read_text(encoding="utf-8")).all("a") if "#" not in (a["href"] or "")]
    assert links
    assert all((out.parent / (link or "")).is_file() for link in links)


def test_the_command_says_what_it_found(tmp_path, one):
    put(tmp_path, "a", one(due="2026-06-01"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b/result.json").write_text("{}", encoding="utf-8")
    run = CliRunner().invoke(app, ["index", str(tmp_path), "--today", "2026-11-21"])
    assert run.exit_code == 0
    assert "audits: 1, rows: 1, overdue: 1, not read: 1" in run.stdout
    assert "overdue since 2026-06-01: finetune in a" in run.stdout
    assert "not read: b/result.json" in run.stdout
    assert (tmp_path / "index.html").is_file()
    for args, said in (
        ([str(tmp_path / "none")], "no such folder"),
        ([str(tmp_path), "--today", "tomorrow"], "must be a day such as"),
    ):
        bad = CliRunner().invoke(app, ["index", *args])
        assert bad.exit_code == 2
        assert said in bad.stderr


def test_an_empty_folder_is_a_page_that_says_so(tmp_path):
    page = page_of(tmp_path)
    assert "No result.json was found" in page.text
    assert not page.all("script")
    assert not page.all("table")


def test_a_result_without_subjects_keeps_its_row(tmp_path, one):
    put(tmp_path, "a", replace(one(), subjects=()))
    assert "the result holds no subject" in page_of(tmp_path).text


def test_membership_has_no_other_tail_and_needs_no_bound(tmp_path, factory):
    put(tmp_path, "a", factory.membership())
    page = page_of(tmp_path)
    row = next(cells for cells in page.rows if "membership" in " ".join(cells))
    assert "72 models, before" in row[3]
    assert "over-forgotten" not in row[5]
    assert "no alpha" in row[7]


def test_many_series_are_drawn_up_to_a_number_and_the_rest_is_told(tmp_path, one, monkeypatch):
    from mnemoscope.reports import history

    monkeypatch.setattr(history, "DRAWN", 1)
    for i, subject in enumerate(("finetune", "retrain")):
        for day in ("2026-05-01", "2026-06-01"):
            put(tmp_path, f"{subject}{day}", one(day, subject=subject, rate=(100 + i, 14_400)))
    page = page_of(tmp_path)
    assert "Not drawn; the numbers are below." in page.text
    assert len([a for a in page.all("svg") if a.get("role") == "img"]) == 1
    assert page.text.count("Data behind this figure") == 2


@pytest.mark.slow
def test_hundreds_of_audits_take_seconds_and_little_memory(tmp_path, one):
    import time

    for i in range(300):
        day = (date(2026, 1, 1) + timedelta(days=i)).isoformat()
        put(tmp_path, f"{i:03d}", one(day, model=i, rate=(100 + i, 14_400)))
    start = time.process_time()
    file, history = write_history(tmp_path, today=TODAY)
    assert time.process_time() - start < 20
    assert len(history.audits) == 300
    assert file.stat().st_size < 5_000_000
