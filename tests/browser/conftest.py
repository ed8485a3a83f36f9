"""One headless Chromium for all tests of pages, and the pages, each made once from what an audit found."""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome")
NO_BROWSER = f"no Chromium on the path ({', '.join(NAMES)}): install it to test pages in a browser"
PROBES = Path(__file__).with_name("probes.js").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser; nothing is downloaded for it."""
    sync = pytest.importorskip("playwright.sync_api")
    pytest.importorskip("axe_playwright_python.sync_playwright")
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(NO_BROWSER)
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page that is open, and everything it did that a page from disk should not do."""

    page: Any
    noise: list[str] = field(default_factory=list)

    def probe(self, name: str, *arguments: object) -> Any:
        """Ask one of the probes of ``probes.js``."""
        shown = ", ".join(repr(a) for a in arguments)
        return self.page.evaluate(f"window.__probes.{name}({shown})")


Open = Callable[..., Any]


@pytest.fixture(scope="session")
def visit(chromium: Any) -> Open:
    """Open a file; every console line of weight, every error and every request beyond the file is noted."""

    @contextmanager
    def opened(
        path: Path, *, width: int = 1440, height: int = 900, scheme: str = "light", script: bool = True
    ) -> Iterator[Visit]:
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            java_script_enabled=script,
            reduced_motion="reduce",
            locale="en-GB",
        )
        try:
            page = context.new_page()
            page.set_default_timeout(120_000)  # a busy machine is no fault of a page
            made, address = Visit(page), path.as_uri()
            page.on("console", lambda m: made.noise.append(f"console {m.type}: {m.text}"))
            page.on("pageerror", lambda e: made.noise.append(f"error: {e}"))
            page.on(
                "request",
                lambda r: (
                    r.url.split("#")[0] == address
                    or r.url.startswith("data:")
                    or made.noise.append(f"request: {r.url}")
                ),
            )
            page.goto(address, timeout=120_000)
            page.evaluate(PROBES)
            yield made
        finally:
            context.close()

    return opened


def _factory() -> ModuleType:
    path = ROOT / "tests/reports/result_factory.py"
    spec = importlib.util.spec_from_file_location("browser_result_factory", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of a page by its name, written when it is first asked for."""
    folder = tmp_path_factory.mktemp("pages")
    factory = _factory()

    @cache
    def written(name: str) -> Path:
        kind, _, which = name.partition(":")
        if kind == "history":
            return _history(folder, factory)
        text = {"result": _result, "edition": _edition, "league": _league, "real": _real}[kind](factory, which)
        path = folder / f"{kind}-{which}.html"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def _result(factory: ModuleType, which: str) -> str:
    from mnemoscope.reports.html import render_html

    # Their drawings are those of the others; matplotlib takes longer than the browser.
    return render_html(getattr(factory, which)(), figures=which not in ("all_words", "successive"))


def _edition(factory: ModuleType, which: str) -> str:
    from mnemoscope.reports.editions import for_edition
    from mnemoscope.reports.html import render_html

    whole = replace(factory.result([factory.subject("noop")]), edition="restricted")
    return render_html(for_edition(whole, which))


def _real(_factory: ModuleType, which: str) -> str:
    from mnemoscope.reports.html import render_html
    from mnemoscope.reports.schema import read_result

    return render_html(read_result(ROOT / "benchmarks/results" / which))


def _league(factory: ModuleType, _which: str) -> str:
    from mnemoscope.audit.verdict.league import LeagueEntry, league_table
    from mnemoscope.reports.league import render_league

    subjects = [factory.subject(name) for name in factory.SHIFT]
    entries = [LeagueEntry(forget, 0, factory.result(subjects)) for forget in ("random", "class 3")]
    return render_league(league_table(entries, title="Four ways of deleting", digest="sha256:00", level=0.95))


def _history(folder: Path, factory: ModuleType) -> Path:
    from datetime import date

    from mnemoscope.audit.verdict.declared import Declared
    from mnemoscope.reports.history import write_history
    from mnemoscope.reports.schema import to_json

    made = {
        "v1": replace(
            factory.result(), created_at="2026-03-01T10:00:00Z", declared=Declared(next_test_due="2026-06-01")
        ),
        "v2": replace(
            factory.result([factory.subject("finetune", shift=0.3)]),
            created_at="2026-07-01T10:00:00Z",
            declared=Declared(next_test_due="2026-10-01"),
        ),
        "v3": replace(factory.one_model(), created_at="2026-08-01T10:00:00Z"),
        "v4": factory.membership(),
        "hostile": factory.hostile(),
    }
    for name, result in made.items():
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "result.json").write_bytes(to_json(result))
        (folder / "runs" / name / "report.html").write_text("a report", encoding="utf-8")
    (folder / "runs/cut").mkdir()
    (folder / "runs/cut/result.json").write_text("{", encoding="utf-8")
    return write_history(folder / "runs", today=date(2026, 11, 21))[0]
