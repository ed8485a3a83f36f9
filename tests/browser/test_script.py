"""What the page's own script adds: a curve that can be read off by pointer and keyboard, and tables that sort."""

import pytest

pytestmark = pytest.mark.slow


def test_a_roc_curve_is_read_off_and_tables_sort(visit, page_file):
    with visit(page_file("result:one_model")) as seen:
        page = seen.page
        figure = page.locator("figure[data-roc]").first
        read = figure.locator("output")
        assert read.inner_text() == "Point at the curve, or move the slider."
        figure.get_by_role("button", name="of the plan").click()
        chosen = read.inner_text()
        assert "FPR 10.0 %" in chosen
        assert all(role in chosen for role in ("before", "after", "retrained"))
        slider = figure.get_by_role("slider")
        slider.focus()
        slider.press("ArrowLeft")
        assert read.inner_text() != chosen
        assert slider.get_attribute("aria-valuetext") in read.inner_text()
        figure.locator(".drawing svg").scroll_into_view_if_needed()
        box = figure.locator(".drawing svg").bounding_box()
        page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.5 * box["height"])
        assert "FPR" in read.inner_text()
        moved = float(slider.input_value())
        page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"])
        assert float(slider.input_value()) < moved

        table = page.locator("#S14 table")
        first = table.locator("tbody th").first
        head = table.locator("thead th").first
        assert first.inner_text() == "GDPR"
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert first.inner_text() == "CCPA"
        head.get_by_role("button").press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert first.inner_text() == "NIST SP 800-226"
