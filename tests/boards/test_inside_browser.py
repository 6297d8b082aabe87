"""The page of a look in a real browser: chosen, moved in, hovered, in the dark, on a narrow screen."""

from __future__ import annotations

import numpy as np
import pytest
from browsing import missing
from looked_at import attention, html, page

from attnbench.boards.inside import packing

READY = "document.body.dataset.ready"


@pytest.fixture(scope="module")
def look_page():
    return html()[0]


@pytest.fixture
def shown(browser, look_page):
    """The page of a look, opened and drawn."""
    browser.open(look_page)
    browser.until(READY)
    assert title(browser) == "encoder layer 1, head 1"  # the highest score
    after(browser, lambda: browser.run("choose(0, false)"))
    yield browser
    assert browser.complaints() == [] and browser.requests() == []


def title(browser):
    return browser.one("#title").text


def after(browser, act):
    """Do something and wait until the page has followed."""
    before = int(browser.run(f"return {READY}"))
    act()
    browser.until(f"Number({READY}) > {before} && Number({READY}) === asked")


def view(browser, place):
    after(browser, lambda: browser.all("#views input")[place].click())


def cell_colour(browser, number):
    return browser.run("return getComputedStyle(cells[arguments[0]]).backgroundColor", number)


def values(browser):
    """Return what the map shows now, None where nothing is seen."""
    return browser.run("return shown.values.map((value) => Number.isNaN(value) ? null : value)")


def expected(text, layer, head, method):
    array = attention((6, 3)[text], 10 * text + layer)[method][head]
    return packing.weights(packing.levels(array)).ravel()


def test_weights_are_decoded_as_they_were_packed(shown):
    for number, (layer, head) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        shown.run(f"choose({number}, false)")
        shown.until(f"shown && asked === Number({READY})")
        np.testing.assert_allclose(values(shown), expected(0, layer, head, 0), rtol=1e-12)


def test_a_click_on_a_head_shows_it(shown):
    assert title(shown) == "encoder layer 0, head 0"
    rows = [row.get_attribute("aria-label") for row in shown.all("[role=rowheader]")]
    assert rows == ["layer 1", "layer 0"]  # the first layer at the bottom, as in pictures
    after(shown, lambda: shown.all("[role=gridcell]")[1].click())
    assert title(shown) == "encoder layer 1, head 1"
    assert shown.one("#has").text == "first"
    assert (
        shown.one("[aria-selected=true]")
        .get_attribute("aria-label")
        .startswith("encoder layer 1 head 1, sharp 1.5")
    )
    assert shown.one("[aria-selected=true]").text == "Fi" and "first" in shown.one("#badges").text


def test_arrow_keys_move_from_head_to_head_and_over_the_map(shown):
    shown.run("cells[0].focus()")
    for key, told in (("ARROW_UP", "layer 1, head 0"), ("ARROW_RIGHT", "layer 1, head 1"),
                      ("ARROW_DOWN", "layer 0, head 1"), ("HOME", "layer 0, head 0")):  # fmt: skip
        after(shown, lambda key=key: shown.key(key))
        assert title(shown) == f"encoder {told}"
    shown.key("ARROW_LEFT")
    assert title(shown) == "encoder layer 0, head 0"
    shown.run("map.focus()")
    for key in ("ARROW_DOWN", "ARROW_RIGHT", "ARROW_RIGHT", "ARROW_UP", "ARROW_UP"):
        shown.key(key)
    assert shown.one("#readout").text.startswith("“[CLS]” → “soup”: dense ")


def test_dense_method_and_difference(shown):
    dense, pruned = (expected(0, 0, 1, which) for which in (0, 1))
    shown.run("choose(1, false)")
    view(shown, 1)
    np.testing.assert_allclose(values(shown), pruned, rtol=1e-12)
    assert shown.one("#scores tr:nth-child(3)").text.split()[-3:] == ["0.5", "0.75", "+0.25"]
    assert len(shown.all("#histogram .one rect")) > 1 and shown.all("#histogram .other rect")
    none = cell_colour(shown, 0)
    view(shown, 2)
    np.testing.assert_allclose(values(shown), np.where(pruned == dense, 0, pruned - dense), rtol=1e-12)
    assert cell_colour(shown, 0) != none  # no change: no colour
    assert "none" in shown.run("return cells[0].className") and "none" not in shown.run(
        "return cells[1].className"
    )
    assert "change of sharp" in shown.one("#scale").text


def test_the_histogram_counts_every_weight(shown):
    shares = np.array(shown.run("return counted(shown.changed)"))
    levels = packing.levels(attention(6, 0)[1][0]).ravel()
    assert shares[0] == pytest.approx((levels == 0).mean()) and shares.sum() == pytest.approx(1)
    bins = np.minimum(31, (levels[levels > 0].astype(int) - 1) * 32 // 253)
    np.testing.assert_allclose(shares[1:], np.bincount(bins, minlength=32) / levels.size)


def test_another_text_and_another_score(shown):
    from selenium.webdriver.support.ui import Select

    after(shown, lambda: Select(shown.one("#text")).select_by_index(1))
    assert [token.text for token in shown.all("#keys .token")] == ["[CLS]", "no", "[SEP]"]
    np.testing.assert_allclose(values(shown), expected(1, 0, 0, 0), rtol=1e-12)
    first = [cell_colour(shown, number) for number in range(4)]
    assert len({*first}) == 4
    after(shown, lambda: Select(shown.one("#score")).select_by_index(1))
    assert len({cell_colour(shown, number) for number in range(4)}) == 1


def test_a_token_under_the_pointer_is_told(shown):
    canvas = shown.one("#map")
    cell, left, top = (shown.run(f"return shape.{name}") for name in ("cell", "leftEdge", "topEdge"))
    shown.hover(canvas, int(left + 2.5 * cell), int(top + 1.5 * cell))
    weight = expected(0, 0, 0, 0).reshape(6, 6)[1, 2]
    told = shown.one("#readout").text
    assert told.startswith("“the” → “soup”: dense ") and "pruned" in told
    number = told.partition("dense ")[2].split(" ")[0].replace("−", "-")
    assert float(number) == pytest.approx(weight, rel=0.05)
    assert shown.one("#queries .chosen").text == "the" and shown.one("#keys .chosen").text == "soup"
    token = shown.all("#queries .token")[4]
    shown.hover(token, 5, 5)
    assert shown.one("#readout").text.startswith("“good” → “soup”")


def test_light_and_dark(browser, look_page):
    seen = {}
    for dark in (False, True):
        browser.open(look_page, dark=dark)
        browser.until(READY)
        look = "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
        seen[dark] = browser.run(look)
    assert seen[False] == ["rgb(17, 17, 17)", "rgb(255, 255, 255)"]
    assert seen[True] == ["rgb(238, 238, 238)", "rgb(22, 22, 22)"]
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [400, 800, 1300])
def test_nothing_hangs_over_the_edge(browser, look_page, width):
    browser.open(look_page, width=width)
    browser.until(READY)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    for selector in ("#map", "#views", "#histogram svg", ".cell", "#readout"):
        for element in browser.all(selector):
            box = element.rect
            assert box["x"] >= 0 and box["x"] + box["width"] <= width, selector


def test_a_finger_chooses_a_head_and_an_entry(browser, look_page):
    browser.open(look_page, width=400)
    browser.until(READY)
    after(browser, lambda: touch(browser, browser.all("[role=gridcell]")[2], 10, 10))
    assert title(browser) == "encoder layer 0, head 0"
    browser.run("map.scrollIntoView()")
    cell, left, top = (browser.run(f"return shape.{name}") for name in ("cell", "leftEdge", "topEdge"))
    touch(browser, browser.one("#map"), left + 4.5 * cell, top + 3.5 * cell)
    browser.until("document.getElementById('readout').textContent.startsWith('“was” → “good”')")


def touch(browser, element, right, down):
    """Tap a place of an element, from its upper left corner, in the window as it is scrolled."""
    box = browser.run("const {x, y} = arguments[0].getBoundingClientRect(); return [x, y]", element)
    point = {"x": box[0] + right, "y": box[1] + down}
    for kind, points in (("touchStart", [point]), ("touchEnd", [])):
        browser.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def test_hostile_tokens_are_shown_as_they_are(browser):
    nasty = "<img src=x onerror=alert(1)>"
    browser.open(
        html(page(texts=((nasty, ("[CLS]", nasty, "[SEP]")),), method=nasty, column=nasty), role=nasty)[0]
    )
    browser.until(READY)
    assert browser.all("#keys .token")[1].text == nasty and browser.all("img") == []
    assert browser.complaints() == [] and browser.requests() == []


def test_a_head_whose_map_was_left_out_says_so(browser):
    of = page(texts=(("x", tuple("abcdefgh" * 10)),))
    text, body, _ = html(of, most=3000)
    assert body["kept"]
    browser.open(text)
    browser.until(READY)
    absent = next(number for number in range(4) if number not in body["kept"])
    after(browser, lambda: browser.run(f"choose({absent}, false)"))
    assert "no map" in browser.one("#readout").text and not browser.one("#map").is_displayed()
    kept = body["kept"][0]
    after(browser, lambda: browser.run(f"choose({kept}, false)"))
    assert browser.one("#map").is_displayed() and browser.complaints() == []
    assert browser.run("return shown.values.length") == 80 * 80


def test_what_a_page_asks_for_and_complains_of_is_seen(browser):
    browser.open("<p>x<img src=http://nowhere.invalid/x.png><script>throw new Error('y')</script>")
    assert browser.requests() == ["http://nowhere.invalid/x.png"]
    assert any("Error: y" in each for each in browser.complaints())


def test_a_browser_that_is_absent_is_skipped_and_fails_in_ci(monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no chromium"):
        missing("no chromium")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no chromium"):
        missing("no chromium")
