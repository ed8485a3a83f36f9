"""The pictures of docs/walkthroughs.md, drawn by a headless Chromium from what its commands left and print.

Walk through the document first, in a folder of its own; `tests/front/test_walkthroughs.py` does it too:

    python -m pytest tests/front/test_walkthroughs.py -m slow --basetemp=FOLDER
    python benchmarks/walkthrough_pictures.py FOLDER/walk0

Pictures show what a user sees, without the name of any folder above the one they work in.
"""

import contextlib
import html
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from typer.testing import CliRunner

from mnemoscope.cli import app

PICTURES = Path(__file__).parents[1] / "docs/pictures"
MOST_BYTES = 150_000
TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 14px; background: #fbfaf7; width: 980px; box-sizing: border-box; }}
pre {{ margin: 0; padding: 14px 18px; background: #1c2024; color: #e7e9eb; border-radius: 6px; white-space: pre-wrap;
      overflow-wrap: anywhere; font: 14px/1.45 "DejaVu Sans Mono", monospace; }}
b {{ color: #7cc0f0; font-weight: 400; }}</style><pre><b>$ {command}</b>
{said}<b>$ echo $?</b>
{code}</pre>"""


def terminal(browser: Browser, name: str, command: str) -> None:
    """Run one command and draw what a terminal shows of it."""
    done = CliRunner().invoke(app, command.split()[1:], env={"COLUMNS": "110"})
    said = html.escape(done.output if done.output.endswith("\n") else done.output + "\n")
    page = browser.new_page(viewport={"width": 980, "height": 200})
    page.set_content(TERMINAL.format(command=html.escape(command), said=said, code=done.exit_code))
    page.screenshot(path=PICTURES / name, full_page=True)


def history(browser: Browser) -> None:
    """Draw the head of the page over both audits, and the leakage of the deletion job."""
    page = browser.new_page(viewport={"width": 1240, "height": 760})
    page.goto(Path("audits/index.html").absolute().as_uri())
    page.add_style_tag(content="section { padding-top: 1.4rem !important } .cover { padding-top: .8rem !important }")
    page.screenshot(path=PICTURES / "history.png")


def summary() -> None:
    """Draw the first page of the officer's summary."""
    import pypdfium2

    with pypdfium2.PdfDocument("for-the-officer/summary.pdf") as document:
        picture = document[0].render(scale=1.2).to_pil().convert("RGB").quantize(64)
        picture.save(PICTURES / "summary.png", optimize=True)


def main(folder: str) -> None:
    """Make all pictures from a folder in which the document's commands were run."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    PICTURES.mkdir(exist_ok=True)
    with contextlib.chdir(folder), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        terminal(browser, "gate.png", "mnemoscope gate audits/release-7 --policy policy.toml")
        terminal(browser, "verify.png", "mnemoscope verify evidence.zip --public-key engineer.pub.pem")
        history(browser)
        summary()
        browser.close()
    for path in sorted(PICTURES.glob("*.png")):
        size = path.stat().st_size
        print(f"{path.name}: {size:,} bytes")
        if size > MOST_BYTES:
            raise SystemExit(f"{path.name} is larger than {MOST_BYTES:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
