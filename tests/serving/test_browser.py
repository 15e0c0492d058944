"""The page in a real browser, clicked and typed through; a console without errors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.drawn_bundle import EVIL, drawn, drawn_bundle
from tests.serving.running import listening

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as one:
        opened = one.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    report = (
        "<title>report</title><script>try { localStorage.x = 1; document.title = 'free'; }"
        "catch { document.title = 'caged'; }</script>"
    )
    first = drawn_bundle("first", evil=True, files={"report.html": report})
    with listening(first, drawn_bundle("second", num_items=30), max_upload_bytes=500_000) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page, light and wide unless a test asks for another; its console stays empty."""
    look = getattr(request, "param", "light")
    size = {"width": 320, "height": 640} if look == "phone" else {"width": 1280, "height": 900}
    context = browser.new_context(
        viewport=size, color_scheme="dark" if look == "dark" else "light", has_touch=look == "phone"
    )
    opened = context.new_page()
    opened.set_default_timeout(120_000)
    complaints: list[str] = []
    opened.on("console", lambda m: complaints.append(m.text) if m.type != "log" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: complaints.append(dialog.message))
    opened.on("request", lambda r: complaints.append(r.url) if "127.0.0.1" not in r.url and
              not r.url.startswith(("data:", "blob:")) else None)  # fmt: skip
    opened.complaints = complaints
    yield opened
    context.close()
    assert complaints == []


every_look = pytest.mark.parametrize("page", ["light", "dark", "phone"], indirect=True)
phone = pytest.mark.parametrize("page", ["phone"], indirect=True)


def until(page: Any, condition: str) -> None:
    """Waits; Playwright's own way evaluates a text in the page, which the policy forbids."""
    for _ in range(6000):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"it did not happen: {condition}")


def search_for(page: Any, item: str) -> None:
    page.fill("#item", item)
    page.get_by_role("button", name="Search").click()


def open_filters(page: Any) -> None:
    if not page.locator(".filters").evaluate("e => e.open"):
        page.locator(".filters > summary").click()


def results(page: Any, kind: str) -> Any:
    page.wait_for_selector(f'.outcome[data-kind="{kind}"]')
    return page.locator("#results .card")


@every_look
def test_a_picture_a_product_and_a_filter(page: Any, address: str, tmp_path: Path) -> None:
    picture = tmp_path / "rose shoe.jpg"
    picture.write_bytes(drawn("Shoes", "rose", 5))
    page.goto(address)
    assert results(page, "none").count() > 0
    page.set_input_files("#image", picture)
    found = results(page, "picture")
    assert found.count() == 24
    assert "rose shoe.jpg" in page.inner_text("#heading")
    assert "12 similar products in first" in page.text_content("#status")
    assert page.evaluate("document.querySelector('.asked img').naturalWidth") == 32
    open_filters(page)
    page.get_by_label("Bags").check()
    until(page, "document.querySelector('.card .what').textContent === 'Bags'")
    assert {text.strip() for text in page.locator(".card .what").all_inner_texts()} == {"Bags"}
    assert "rose shoe.jpg" in page.inner_text("#heading")  # the picture is still the query
    page.get_by_role("link", name="Remove the filter").click()
    until(page, "document.querySelector('.card .what').textContent === 'Shoes'")
    page.locator(".card .whole").first.click()
    results(page, "item")
    assert "item=p20" in page.url
    assert page.input_value("#item") == "p20"
    assert page.input_value("#image") == ""
    page.reload()
    assert "p20" in page.inner_text("#heading")
    page.go_back()
    results(page, "none")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_category_among_hundreds_is_found_by_its_name(page: Any) -> None:
    rows = {f"p{n}": {"category": f"Kind {n:03d}"} for n in range(400)}
    with listening(drawn_bundle(rows=rows)) as port:
        page.goto(f"http://127.0.0.1:{port}")
        results(page, "none")
        open_filters(page)
        boxes = page.locator(".choice input")
        assert boxes.count() == 200
        page.locator(".find").fill("kind 39")
        until(page, "document.querySelectorAll('.choice').length === 10")
        page.get_by_label("Kind 395").check()
        until(page, "document.querySelectorAll('.card').length === 1")
        assert page.locator(".card .what").inner_text() == "Kind 395"
        page.locator(".find").fill("kind 00")
        until(page, "document.querySelectorAll('.choice').length === 11")
        assert page.get_by_label("Kind 395").is_checked(), "what is chosen stays"


def test_keyboard_alone(page: Any, address: str) -> None:
    page.goto(address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        here = page.evaluate(
            "() => { const e = document.activeElement, s = getComputedStyle(e),"
            " l = e.labels && e.labels[0] ? getComputedStyle(e.labels[0]) : s;"
            " return [e.id || e.className || e.tagName,"
            " s.outlineStyle !== 'none' || l.outlineStyle !== 'none'] }"
        )
        seen.append(here[0])
        assert here[1], f"{here[0]} shows no focus"
        if here[0] == "k":
            break
    assert {"image", "item", "k"} <= set(seen)
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("p9")
    page.keyboard.press("Enter")
    results(page, "item")
    assert "Similar to" in page.inner_text("#heading")
    page.locator(".card .whole").nth(1).focus()
    before = page.url
    page.keyboard.press("Enter")
    until(page, f"location.href !== {before!r}")
    until(page, "document.activeElement.id === 'heading'")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Start over"


def test_dropped_and_pasted_pictures(page: Any, address: str) -> None:
    page.goto(address)
    give = """([kind, name, type, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name, { type }));  // or so many zeros
        const event = kind === "drop"
            ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
        document.body.dispatchEvent(event);
    }"""
    page.evaluate(give, ["drop", "bag.jpg", "image/jpeg", list(drawn("Bags", "blue"))])
    results(page, "picture")
    assert "bag.jpg" in page.inner_text("#heading")
    assert page.locator(".card .id").first.inner_text() == "p6"
    page.evaluate(give, ["paste", "hat.jpg", "image/jpeg", list(drawn("Hats", "green"))])
    until(page, "document.getElementById('heading').textContent.includes('hat.jpg')")
    assert page.locator(".card .id").first.inner_text() == "p11"
    page.evaluate(give, ["drop", "notes.txt", "text/plain", [1, 2, 3]])
    assert "notes.txt is no picture" in page.inner_text("#notice")
    page.evaluate(give, ["drop", "large.jpg", "image/jpeg", 600_000])
    assert "large.jpg has 0.6 MB, more than 0.5 MB" in page.inner_text("#notice")


@phone
def test_errors_are_shown_in_place_and_the_documentation_fits(page: Any, address: str) -> None:
    page.goto(address)
    search_for(page, "nobody")
    results(page, "problem")
    assert "no product “nobody”" in page.inner_text("#results")
    assert "There is no such item" in page.text_content("#status")
    expected = "Failed to load resource: the server responded with a status of 404"
    assert [text for text in page.complaints if expected not in text] == []
    page.complaints.clear()
    page.get_by_role("link", name="Start over").click()
    results(page, "none")
    page.goto(f"{address}/docs#problem-overloaded")
    assert page.locator("#problem-overloaded").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_labels_are_text_and_the_report_is_caged(page: Any, address: str) -> None:
    page.goto(address)
    search_for(page, EVIL)
    results(page, "item")
    assert EVIL in page.inner_text("#heading")
    assert f"<b>{EVIL}</b>" in page.inner_text(".asked")
    page.get_by_role("link", name="Report of first").click()
    page.wait_for_url("**/report?*")
    until(page, "['caged', 'free'].includes(document.title)")
    assert page.title() == "caged"
