import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

import mnemoscope.reports as package
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.reports import phrases
from mnemoscope.reports.html import render_html, write_report
from mnemoscope.reports.schema import from_json, result_digest, to_json

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Collects tags, ids, links and visible text; fails on tags that do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.stack):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def parse(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert not page.stack
    return page


@pytest.fixture(scope="module")
def page_of(factory) -> Callable[..., str]:
    """The page of a result by its maker's name, rendered once for all tests that only read it."""

    @cache
    def rendered(maker: str, figures: bool = True) -> str:
        return render_html(getattr(factory, maker)(), figures=figures)

    return rendered


@pytest.fixture(scope="module")
def page(page_of) -> str:
    return page_of("result")


@pytest.mark.slow
def test_one_file_with_one_script_of_our_own_and_no_network(page):
    seen = parse(page)
    names = {tag for tag, _ in seen.tags}
    assert not names & {"link", "iframe", "object", "embed", "img", "base", "form"}
    assert [attrs for tag, attrs in seen.tags if tag == "script"] == [{}]
    code = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    allowed = "'sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() + "'"
    policy = next(a["content"] for t, a in seen.tags if t == "meta" and a.get("http-equiv"))
    assert f"script-src {allowed};" in policy
    assert not re.search(r"fetch|XMLHttpRequest|innerHTML|eval|import\b|document\.write|localStorage", code)
    for _, attrs in seen.tags:
        for key, value in attrs.items():
            assert not key.startswith("on")
            if key in ("href", "src", "xlink:href"):
                assert value.startswith("#")
    css = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert "url(" not in css
    assert "@import" not in css
    assert "default-src 'none'" in page


@pytest.mark.slow
def test_structure(page):
    seen = parse(page)
    ids = [a["id"] for _, a in seen.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for t, a in seen.tags if t == "a"}
    assert targets <= set(ids)
    levels = [int(t[1]) for t, _ in seen.tags if re.fullmatch("h[1-6]", t)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    assert all(a.get("scope") for t, a in seen.tags if t == "th")
    drawings = [a for t, a in seen.tags if t == "svg" and a.get("aria-hidden") != "true"]
    assert len(drawings) > 17
    assert all(a.get("role") == "img" and len(a["aria-label"]) > 40 for a in drawings)


@pytest.mark.slow
def test_sections_stand_in_order_with_the_verdict_first(factory, page_of):
    page = page_of("result", figures=False)
    ids = re.findall(r'<section id="([^"]+)"', page)
    assert [i for i in ids if i != "requests"] == [f"S{n}" for n in range(16)] + ["A"]
    assert page.index("OUTSIDE BOUND") < page.index("<table") < page.index('id="S1"')
    assert result_digest(factory.result()) in parse(page).text


@pytest.mark.slow
def test_every_table_has_a_number_and_a_title_of_its_own(page_of):
    page = page_of("result", figures=False)
    captions = re.findall(
        r'<caption id="([^"]+)"><span class="cap"><span class="no">(Table S\d+\.\d+)</span> (.*?)</span>', page
    )
    assert len(captions) == page.count("<table") > 30
    assert len({key for key, _, _ in captions}) == len({no for _, no, _ in captions}) == len(captions)
    for section in {no.split(".")[0] for _, no, _ in captions}:
        numbers = [int(no.split(".")[1]) for _, no, _ in captions if no.split(".")[0] == section]
        assert numbers == list(range(1, len(numbers) + 1))
    assert all(len(title) > 10 for _, _, title in captions)
    assert 'aria-labelledby="table-s7-1"' in page


@pytest.mark.slow
def test_figures_are_numbered_within_their_section(page):
    numbers = re.findall(r'<figcaption><span class="no">(Figure S\d+\.\d+)</span> <b>', page)
    assert len(numbers) == len(set(numbers)) == page.count("<figure ")


def outline(page: str) -> list[str]:
    """Headings, sections, tables' columns and lists of facts: what a page consists of, without its numbers."""
    lines = []
    for tag, inner in re.findall(r"<(h[1-6]|thead|section)\b[^>]*?(?: id=\"([^\"]*)\")?[^>]*>", page):
        lines.append(f"{tag} {inner}".strip())
    lines += [re.sub(r"<[^>]+>", "", t) for t in re.findall(r"<(?:th scope=\"col\"|dt)>(.*?)</(?:th|dt)>", page)]
    return lines


SNAPSHOT = "005aba0a"


@pytest.mark.slow
def test_the_outline_of_the_page_is_the_one_that_was_looked_at(page_of):
    """A changed outline is looked at (light, dark, phone, paper), then its digest goes here."""
    found = hashlib.sha256("\n".join(outline(page_of("one_model", figures=False))).encode()).hexdigest()[:8]
    assert found == SNAPSHOT


@pytest.mark.slow
def test_same_result_same_bytes_and_size(factory, page, page_of):
    assert len(page.encode()) < 2_000_000
    assert render_html(factory.membership()) == page_of("membership", figures=True)


def test_a_result_read_back_gives_the_same_page(factory):
    """JSON sorts keys; the page must not depend on the order in which a dictionary was filled."""
    made = factory.one_model()
    plan = replace(made.plan, policy=dict(reversed(sorted(made.plan.policy.items()))))
    settings = {"zeal": 1, "Zeal": 2, "batch": 64}
    made = replace(made, plan=plan, subjects=tuple(replace(s, settings=settings) for s in made.subjects))
    packages = dict(reversed(sorted(made.environment.packages.items())))
    assert len(packages) > 1
    made = replace(made, environment=replace(made.environment, packages=packages))
    read = from_json(to_json(made))
    assert list(read.plan.policy) != list(made.plan.policy)
    assert render_html(read, figures=False) == render_html(made, figures=False)


@pytest.mark.slow
@pytest.mark.parametrize("maker", ["all_words", "one_model", "membership"])
def test_every_word_and_mode_renders(factory, page_of, maker):
    made = getattr(factory, maker)()
    text = parse(page_of(maker, figures=maker != "all_words")).text
    for s in made.subjects:
        assert s.verdict.word in text
        assert s.verdict.meaning in text
        for reason in s.verdict.reasons:
            assert reason in text
        if s.verdict.next_step:
            assert s.verdict.next_step.removeprefix("What would decide it: ") in text
    assert "What would decide it: What would" not in text
    for limitation in made.limitations:
        assert limitation in text


def test_a_membership_audit_speaks_of_members_only(page_of):
    html = page_of("membership", figures=True)
    found = re.findall(r'<figure id="s1-(rates|roc|scores)"(.*?)</figure>', html, re.DOTALL)
    assert len(found) == 3
    figures = " ".join(body for _, body in found)
    assert "non-member" in figures
    assert "forgotten" not in figures.lower()


def test_every_estimate_shows_counts_and_interval(factory):
    made = factory.one_model()
    text = parse(render_html(made, figures=False)).text
    tight = text.replace(" ", "")
    shown = 0

    def check(e: Estimate, kind: str) -> None:
        nonlocal shown
        if e.value is None:
            assert phrases.plain(e.reason, 300).replace(" ", "") in tight
            return
        counts = f"{e.k:,} of {e.n:,}" if e.k is not None else f"n = {e.n:,}"
        block = f"{phrases.amount(e.value, kind)} {phrases.interval(e, kind)} {counts}".replace(" ", "")
        assert block in tight, block
        shown += 1

    for s in made.subjects:
        for f in s.findings:
            check(f.auc, "score")
            check(f.balanced_accuracy, "rate")
            for t in f.tpr:
                check(t.tpr, "rate")
                if t.realised_fpr.value is not None:
                    assert phrases.estimate(t.realised_fpr).replace(" ", "") in tight
        for e in s.endpoints:
            check(e.estimate, phrases.kind_of(e))
        for u in s.utility:
            check(u.accuracy, "rate")
            if u.gap_to_retrained is not None:
                check(u.gap_to_retrained, "difference")
    assert shown > 50


@pytest.mark.slow
def test_hostile_text_stays_text(factory, tmp_path):
    made = factory.hostile()
    html = render_html(made)
    assert len([t for t, _ in parse(html).tags if t == "script"]) == 1
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert re.search(r"A{2001}", html) is None


def test_not_assessed_claims_no_rate_on_its_card(factory):
    """Row 26: a verdict word without power or controls must not stand on a reassuring number."""
    html = render_html(factory.result([factory.not_assessed()]), figures=False)
    card = html[html.index('<article class="card') : html.index("</article>")]
    assert "NOT ASSESSED" in card
    assert "TPR at" not in card


def test_individuals_only_in_the_restricted_edition(factory):
    made = factory.result([factory.subject("noop")])
    assert "digits/0017" not in render_html(made, figures=False)
    assert "digits/0017" in render_html(replace(made, edition="restricted"), figures=False)


@pytest.mark.slow
def test_write_report(factory, tmp_path):
    made = factory.membership()
    paths = write_report(made, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.html", "result.json"]
    assert result_digest(paths.result.read_bytes()) in paths.html.read_text(encoding="utf-8")
    blocked = tmp_path / "file"
    blocked.write_text("x")
    with pytest.raises(InvalidInput, match="cannot write"):
        write_report(made, blocked / "out")


def _tokens(css: str, dark: bool) -> dict[str, str]:
    block = css[css.index("prefers-color-scheme: dark") :] if dark else css
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block[: block.index("}")]))


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_of_text_and_figures(dark):
    css = (Path(package.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    c = _tokens(css, dark)

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def ratio(a: str, b: str) -> float:
        high, low = sorted((luminance(c[a]), luminance(c[b])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for text in ("ink", "muted", "link", "within", "outside", "open", "none"):
        for ground in ("paper", "card", "tint"):
            assert ratio(text, ground) >= 4.5, (text, ground)
    for line in ("fig-before", "fig-after", "fig-retrained", "fig-no-op", "fig-within", "fig-ink"):
        assert ratio(line, "card") >= 3, line


@pytest.mark.slow
def test_measures_defences_bounds_and_classes_are_on_the_page_with_their_controls(page, page_of):
    for heading in (
        "Forgetting, measured",
        "Epsilon that follows",
        "What would help",
        "Reconstruction",
        "classes of attack",
    ):
        assert heading in page
    assert "Floor: retrained" in page
    assert "Ceiling" in page
    assert "not executed" in page
    bare = page_of("membership", figures=False)
    assert "Floor: retrained" not in bare


@pytest.mark.slow
def test_a_refuted_privacy_claim_stands_in_the_table_of_epsilons(factory):
    made = factory.result()
    row = made.subjects[0].epsilons[0]
    rows = (
        row,
        replace(row, fleet="DP-SGD, noise 1", claimed=2.5, refuted=True),
        replace(row, fleet="DP-SGD, noise 2", claimed=7.25),
        replace(row, fleet="DP-SGD, noise 3"),
    )
    page = parse(render_html(replace(made, subjects=(replace(made.subjects[0], epsilons=rows),)), figures=False))
    assert "Claimed" in page.text
    assert "DP-SGD, noise 1" in page.text
    assert "2.50 REFUTED" in page.text
    assert page.text.count("REFUTED") == 1
    assert "7.25" in page.text
    assert "no claim" in page.text
    assert "not compared" in page.text
    unclaimed = parse(render_html(made, figures=False)).text
    assert "Claimed" not in unclaimed


@pytest.mark.slow
def test_requests_over_time_stand_in_a_table_for_each_subject(factory):
    page = render_html(factory.successive(), figures=False)
    section = page.split('<section id="requests">')[1].split("</section>")[0]
    assert section.count("<table") == 3
    assert "+4.0 points" in section  # what came back of the first request, after the third
    assert "90 of 1,000" in section
    assert "<b>odd" not in section
    assert "the counts bear no rate" in section
    assert 'id="requests"' not in render_html(factory.result(), figures=False)
