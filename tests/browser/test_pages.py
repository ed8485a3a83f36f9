"""Every page in a real browser: silent, offline, whole at every width, in light, dark, on paper, by keyboard alone."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PAGES = (
    "result:result",
    "result:all_words",
    "result:one_model",
    "result:membership",
    "result:successive",
    "result:hostile",
    "real:location30.json",
    "real:compare_leaking.json",
    "edition:public",
    "edition:internal",
    "edition:restricted",
    "league:two",
    "history:five",
)
AXE = {
    "result:one_model": ("light", "dark"),
    "result:membership": ("light",),
    "result:hostile": ("dark",),
    "real:compare_leaking.json": ("light", "dark"),
    "edition:public": ("dark",),
    "edition:restricted": ("light",),
    "league:two": ("light", "dark"),
    "history:five": ("light", "dark"),
}
"""Where axe looks: it reads every element of a page in turn, seconds for one of many subjects, so each kind once."""
KEYBOARD = ("result:hostile", "real:location30.json", "edition:restricted", "league:two", "history:five")
PHONE, DESK = 375, 1440
A4 = 688
"""Pixels between the margins of the print style (14 mm) on A4."""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def axe(page) -> list[str]:
    """What axe-core finds against the rules, one sentence an element."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": RULES}}
    return [
        f"{rule['id']} ({rule['impact']}): {rule['help']}: {node['html'][:160]}"
        for rule in Axe().run(page, options=options).response["violations"]
        for node in rule["nodes"][:2]
    ]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_at_every_width_on_paper_in_light_and_dark(visit, page_file, name):
    """One visit for all, for a page is opened in more time than it is looked at."""
    with visit(page_file(name)) as seen:
        said: dict[str, list[str]] = {}
        # 320 px is what is left of 1280 at four times the size, 720 of 1440 at twice.
        for width in (DESK, 720, PHONE, 320):
            seen.page.set_viewport_size({"width": width, "height": 900})
            said[f"{width} px"] = seen.probe("layout") + (seen.probe("drawings") if width in (DESK, PHONE) else [])
        said["light"] = seen.probe("contrast", 4.5) + (axe(seen.page) if "light" in AXE.get(name, ()) else [])
        seen.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        seen.page.set_viewport_size({"width": PHONE, "height": 900})
        said["unfolded"] = seen.probe("layout") + seen.probe("drawings")
        seen.page.emulate_media(color_scheme="dark")
        said["dark, unfolded"] = seen.probe("contrast", 4.5) + (axe(seen.page) if "dark" in AXE.get(name, ()) else [])
        seen.page.set_viewport_size({"width": A4, "height": 900})
        seen.page.emulate_media(media="print")
        said["paper"] = seen.probe("paper") + seen.probe("contrast", 4.5)
        # A dark screen must not make dark paper.
        ground = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        said["paper"] += [] if ground in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)") else [f"printed on {ground}"]
        said["noise"] = seen.noise
        assert not any(said.values()), "\n".join(f"{k}: {line}" for k, v in said.items() for line in v[:8])


@pytest.mark.parametrize("name", PAGES)
def test_without_scripts_a_page_is_whole_and_says_the_same(visit, page_file, name):
    with visit(page_file(name), script=False, scheme="dark") as seen:
        said = seen.probe("layout") + seen.probe("drawings")
        seen.page.set_viewport_size({"width": PHONE, "height": 900})
        said += seen.probe("layout") + seen.noise
        assert not said, "\n".join(said[:20])
        plain = set(seen.probe("words"))
    assert len(plain) > 20
    if "<script>" in page_file(name).read_text(encoding="utf-8"):
        with visit(page_file(name)) as seen:
            spoken = set(seen.probe("words"))
        assert not plain - spoken, "the script removes what is said"
        extra = {text for text in spoken - plain if any(c.isdigit() for c in text) and "shown" not in text}
        assert not extra, "numbers that only the script shows"


@pytest.mark.parametrize("name", KEYBOARD)
def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(visit, page_file, name):
    with visit(page_file(name), width=DESK) as seen:
        keys, stops = seen.page.keyboard, seen.probe("stops")
        keys.press("Tab")
        first = seen.page.evaluate("[document.activeElement.className, document.activeElement.hash]")
        assert first[0] == "skip"
        places, said = [], []
        for _ in range(stops):
            now = seen.probe("focus")
            if now["body"]:
                break
            said += now["said"]
            if now["place"] >= 0:  # a browser may stop at a scrolling box of its own accord
                places.append(now["place"])
            keys.press("Tab")
        assert not said, "\n".join(said[:10])
        assert places == sorted(places)
        assert set(places) == set(range(len(set(places)))), "stops are left out on the way"
        assert len(set(places)) >= 0.9 * stops
        seen.page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        seen.page.locator(".skip").focus()
        keys.press("Enter")
        assert seen.page.evaluate("location.hash") == first[1]
        top = seen.page.evaluate("document.querySelector(location.hash).getBoundingClientRect().top")
        assert -5 <= top < 900, "the skip link leads out of sight"


@pytest.mark.parametrize("name", ["result:result", "real:location30.json", "history:five"])
def test_details_open_and_close_by_keyboard(visit, page_file, name):
    with visit(page_file(name), script=False) as seen:
        folded = seen.page.locator("details:visible")
        assert folded.count() > 0
        for i in range(min(folded.count(), 3)):
            one = folded.nth(i)
            one.locator("summary").first.focus()
            for key, is_open in (("Enter", True), ("Space", False)):
                seen.page.keyboard.press(key)
                assert one.evaluate("(d) => d.open") is is_open


def column(seen, number: int) -> list[str]:
    shown = "[...document.querySelectorAll('#audits tbody tr')].filter((r) => !r.hidden)"
    return seen.page.evaluate(f"{shown}.map((r) => r.cells[{number}].dataset.key)")


def test_the_list_of_audits_is_sorted_and_filtered_by_keyboard(visit, page_file):
    with visit(page_file("history:five")) as seen:
        keys = seen.page.keyboard
        leakage = seen.page.locator("#audits thead th").nth(5)
        leakage.locator("button").focus()
        keys.press("Enter")
        assert leakage.get_attribute("aria-sort") == "ascending"
        up = [float(key) for key in column(seen, 5) if key]
        assert up == sorted(up)
        assert len(up) > 3
        keys.press("Space")
        assert leakage.get_attribute("aria-sort") == "descending"
        assert [float(key) for key in column(seen, 5) if key] == sorted(up, reverse=True)
        assert seen.page.locator("#audits [aria-sort]").count() == 1
        rows = len(up)
        seen.page.locator("#filter-text").focus()
        keys.type("finetune")
        left = column(seen, 2)
        assert 0 < len(left) < rows
        assert all("finetune" in key or "four ways" in key for key in left)
        assert f"{len(left)} of {rows} rows shown" in seen.page.locator("#filter-said").inner_text()
        seen.page.locator("#filter-text").fill("")
        seen.page.locator("#filter-word").select_option("WITHIN BOUND")
        assert set(column(seen, 4)) == {"WITHIN BOUND"}
        seen.page.locator("#filter-word").select_option("")
        seen.page.locator("#filter-overdue").focus()
        keys.press("Space")
        due = seen.page.evaluate(
            "[...document.querySelectorAll('#audits tbody tr')].filter((r) => !r.hidden).map((r) => r.dataset.due)"
        )
        assert due
        assert set(due) == {"overdue"}
        keys.press("Space")
        assert len(column(seen, 5)) == rows
        assert not seen.noise


def test_links_of_the_list_open_the_reports_beside_it(visit, page_file):
    path: Path = page_file("history:five")
    with visit(path, script=False) as seen:
        links = seen.page.evaluate("[...document.querySelectorAll('#audits a')].map((a) => a.href)")
        assert len(links) >= 10
        assert all(link.startswith(path.parent.as_uri()) for link in links)
        assert all((path.parent / link.removeprefix(path.parent.as_uri() + "/")).is_file() for link in set(links))


def test_a_hostile_page_runs_nothing_of_its_own(visit, page_file):
    for name in ("result:hostile", "history:five"):
        with visit(page_file(name)) as seen:
            dialogs: list[str] = []
            seen.page.on("dialog", lambda d, said=dialogs: (said.append(d.message), d.dismiss()))
            seen.page.reload()
            assert not dialogs
            assert seen.page.locator("[onerror], [onload], [onclick], iframe, object, embed").count() == 0
            # The policy of the page itself stops what escaping would have missed.
            seen.page.evaluate(
                "const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
                " document.body.append(s); const i = new Image(); i.src = 'https://example.org/x.png';"
            )
            assert seen.page.evaluate("window.ran") is None
            seen.page.wait_for_timeout(50)
            stopped = [line for line in seen.noise if "Content Security Policy" in line]
            assert any("script" in line for line in stopped)
            assert any("example.org" in line for line in stopped)


BROKEN = """<!doctype html><html lang="en"><title>broken</title><body style="margin:0;background:#fff;color:#111">
<p style="position:absolute;left:0;top:10px;margin:0">one line of text</p>
<p style="position:absolute;left:9px;top:12px;margin:0">another line of text</p>
<div style="width:30px;overflow:hidden;white-space:nowrap;margin-top:60px">cut off at its edge</div>
<a href="#x" style="outline:none">no outline</a>
<div style="width:3000px">wide</div>
<figure style="background:#fff"><svg role="img" viewBox="0 0 100 60" style="width:200px;height:120px">
<text x="80" y="10" style="fill:#111">beyond the edge</text><text x="5" y="40" style="fill:#ddd">pale</text>
<text x="6" y="41" style="fill:#111">upon</text></svg></figure>
<script>console.error("said");fetch("https://example.org/")</script>"""


def test_the_probes_see_what_is_broken(visit, tmp_path):
    path = tmp_path / "broken.html"
    path.write_text(BROKEN, encoding="utf-8")
    with visit(path) as seen:
        said = "\n".join(seen.probe("layout"))
        assert "scrolls sideways" in said
        assert '"one line of text" and "another line of text" cover each other' in said
        assert "cuts its content off" in said
        drawn = "\n".join(seen.probe("drawings"))
        assert '"beyond the edge" is cut off' in drawn
        assert '"pale" and "upon" cover each other' in drawn
        assert seen.probe("contrast", 4.5) == ['"pale" has a contrast of 1.36']
        assert "scrolls sideways" in "\n".join(seen.probe("paper"))
        seen.page.keyboard.press("Tab")
        assert "focus does not show" in seen.probe("focus")["said"][0]
        assert {line.split(":")[0] for line in seen.noise} >= {"console error", "request"}
        assert any(line.startswith("svg-img-alt") for line in axe(seen.page))
