"""The page: whole whatever the names, without the network, sorted, filtered and opened in a browser."""

from __future__ import annotations

import json
import re

import pytest
from parsed_html import HOSTILE, parsed
from sample_records import board as sample
from sample_records import missing, record, right

from attnbench.boards import board, suite
from attnbench.boards.page import document
from attnbench.boards.pictures import draw, points
from attnbench.boards.tables import leaderboard


def embedded(parser):
    return json.loads(next(text for tag, text in parser.text if tag == "script" and text.startswith("[")))


def with_fit():
    items = sample()
    best = next(item for item in items if item.cell["method"] == "prune95")
    best.fitted = {"prune95": {"scores_": {"encoder 0": [0.1, 0.9], "encoder 1": [0.5, -0.2]}}}
    best.provenance = {"source": "folder", "model": "tiny", "code": "abc"}
    best.settings = {"limit": 1000, "seed": 3, "dtype": "float32"}
    return items


def whole(items):
    found = board.build(items)
    drawn = [(each, draw.draw(each)["svg"]) for each in points.pictures(found)]
    return document.to_html(found, drawn)


@pytest.fixture(scope="module")
def text():
    items = with_fit()
    for item in items:
        if item.cell["method"] == "prune50":
            item.measured = {"sparsity": 0.5}
    return whole(items)


def test_the_page_holds_table_pictures_and_records(text):
    parser = parsed(text)
    assert parser.tags.count("table") == 1 and parser.tags.count("tr") == 10 and "svg" in parser.tags
    items = embedded(parser)
    assert len(items) == len(sample())
    best = next(item for item in items if item["cell"]["method"] == "prune95")
    assert best["reproduce"] == (
        "attnbench run --models PATH/tiny --tasks sst2 --methods prune95 --limit 1000 --seed 3"
    )
    seeds = re.search(r'data-records="([\d ]+)">prune80:random \(3 seeds\)', text)[1].split()
    assert [items[int(place)]["cell"]["method"] for place in seeds] == [
        "prune80:random", "prune80:random:seed=1", "prune80:random:seed=2"
    ]  # fmt: skip


def test_the_page_needs_nothing_from_outside(text):
    parser = parsed(text)
    for name, value in parser.attributes:
        if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert value.startswith("#"), (name, value)
    styles = "".join(data for tag, data in parser.text if tag == "style")
    assert "@import" not in styles and "url(" not in styles
    assert "fetch(" not in text and "XMLHttpRequest" not in text and "default-src 'none'" in text


def test_ids_are_unique(text):
    ids = [value for name, value in parsed(text).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_leave_the_page_whole(name):
    items = [record(m, model=name, task=name, **{name: right(100, 9)}) for m in ("dense", "prune50", name)]
    items += [missing("prune80", "failed", f"{name}: {name}", model=name, task=name)]
    items[1].measured = {"sparsity": 0.5}
    items[1].fitted = {name: {name: [1.0]}, "x": {"scores_": {name: [1.0, 2.0]}}}
    items[1].measured |= {"flops": name, "latency": {"seconds": name, "ratio": name}, "memory": [name]}
    parser = parsed(whole(items))
    assert parser.tags.count("script") == 2 and parser.tags.count("b") == 0
    assert not any(attribute.startswith("on") for attribute, _ in parser.attributes)
    assert embedded(parser)[1]["cell"]["model"] == name
    assert max(len(data) for tag, data in parser.text if tag not in ("script", "style")) < 6000


@pytest.mark.parametrize("name", HOSTILE)
def test_a_suite_of_hostile_texts_leaves_page_and_markdown_whole(name):
    part = suite.Part((name.replace("/", "|"), "other"), (name,))  # a slash is for OWNER/NAME alone
    asked = suite.Suite(
        suite.Path("x.toml"), name, ("prune80",), (part,), ("prune80 > uniform",), about=f"{name}\n\n{name}"
    )
    wrong = {"dense": 5, "uniform": 40, "prune80": 9}
    model, task = next(part.columns())
    items = [record(method, model=model, task=task, acc=right(100, count)) for method, count in wrong.items()]
    found = board.build(items, asked)
    assert len(found.absent) == 1 and "other" in found.absent[0]
    parser = parsed(document.to_html(found))
    assert parser.tags.count("script") == 2 and "a" not in parser.tags
    assert not any(attribute.startswith("on") for attribute, _ in parser.attributes)
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    rendered = markdown.render(leaderboard.write(found))
    assert rendered.count("<table>") == 2 and rendered.count("<tr>") == 6
    assert not re.search(r"<(script|a (?!id=)|img)", rendered)


ACTIONS = """
const header = (text) => [...document.querySelectorAll("th button")].find((b) => b.textContent === text);
const methods = () => [...document.querySelectorAll("tbody tr")].filter((r) => !r.hidden)
  .map((r) => r.querySelector(".method").textContent);
const out = { at_first: methods() };
header("acc %").click(); out.by_score = methods();
header("acc %").click(); out.by_score_again = methods();
out.aria = header("acc %").parentNode.getAttribute("aria-sort");
header("acc %").click(); out.third = methods();
header("method").click(); out.by_name = methods();
const input = document.getElementById("filter");
input.value = "prune -random"; input.dispatchEvent(new Event("input")); out.filtered = methods();
out.count = document.getElementById("count").textContent;
input.value = ""; input.dispatchEvent(new Event("input"));
[...document.querySelectorAll("td button")].find((b) => b.textContent === "prune95").click();
const dialog = document.getElementById("record");
out.open = dialog.open; out.record = dialog.textContent;
out.heat = dialog.querySelectorAll(".heat td").length;
dialog.querySelector(".close").click(); out.closed = !dialog.open;
[...document.querySelectorAll("td button")].find((b) => b.textContent.startsWith("prune80:random")).click();
out.seeds = dialog.querySelectorAll("h2").length;
return out;
"""


LINKED = """
const row = document.getElementById(arguments[0]);
const count = (selector) => document.querySelectorAll(selector).length;
const out = { rows: count("tbody tr[id]"), links: count("a.link") };
const choice = document.getElementById("family");
out.families = [...choice.options].map((option) => option.value);
choice.value = "logquant"; choice.dispatchEvent(new Event("input"));
out.of_family = [...document.querySelectorAll("tbody tr")].filter((r) => !r.hidden).map((r) => r.id);
out.hidden = row.hidden;
return out;
"""


def test_a_row_is_linked_to_and_a_family_stands_alone(text, browser):
    browser.open(text)
    anchor = "tiny/sst2/prune80,random"
    out = browser.run(LINKED, anchor)
    assert out["rows"] == 9 and out["links"] == 0
    assert out["families"] == ["", "heads", "logquant", "prune", "window"]
    assert out["of_family"] == [f"tiny/sst2/{name}" for name in ("dense", "uniform", "logquant3")]
    assert out["hidden"]
    browser.run(f"location.hash = {json.dumps(anchor)};")
    browser.until("document.querySelector('tr:target').checkVisibility()")
    assert browser.one("#count").text == "9 of 9 rows"  # it shows what is linked to
    browser.hover(browser.one("tr:target td.method"), 5, 5)
    assert browser.one("tr:target a.link").get_attribute("href").endswith(f"#{anchor}")
    browser.one("tr:target a.link").click()
    assert browser.complaints() == []


SORTED = """
const control = document.querySelector("tr.control td.method"), button = document.querySelector("th button");
const look = () => [getComputedStyle(control, "::before").content, getComputedStyle(control).paddingLeft];
const out = [look()];
for (let k = 0; k < 3; k++) { button.click(); out.push(look()); }
return out;
"""


def test_a_control_hangs_from_its_method_only_where_that_is_above_it(browser):
    wrong = {"dense": 50, "uniform": 400, "prune80": 60, "prune80:random": 90}
    items = [record(method, acc=right(1000, count)) for method, count in wrong.items()]
    browser.open(whole(items))
    first, *others, again = browser.run(SORTED)
    assert "└" in first[0] and again == first  # the third click brings the board's order back
    assert all(mark == "none" and float(room[:-2]) < float(first[1][:-2]) for mark, room in others)


LINES_OF_LAST_WORDS = """return [...document.querySelectorAll("tbody td.verdict")].map((cell) => {
  const text = cell.firstChild, word = document.createRange();
  if (!text) return 1;
  word.setStart(text, text.textContent.lastIndexOf(" ") + 1);
  word.setEnd(text, text.length);
  return word.getClientRects().length;
});"""


def test_a_narrow_window_shows_the_score(browser):
    items = []
    for method, wrong in (("dense", 50), ("prune80", 60), ("prune80:random", 400), ("uniform", 800)):
        for seed in range(3 if "random" in method else 1):
            correct = right(1000, wrong + 9 * seed)
            name = f"{method}:seed={seed}" if seed else method
            rates = {"a_metric_with_a_long_name": correct, "seconds_or_so": correct * 12345.678}
            items.append(record(name, model="a-long-name-of-a-model", task="a-long-name-of-a-task", **rates))
    browser.open(whole(items), width=400)
    assert set(browser.run(LINES_OF_LAST_WORDS)) == {1}  # no verdict is broken within its word
    cell = browser.one("tbody td[data-value]").rect
    assert 0 < cell["x"] + cell["width"] < 400
    assert browser.run("return document.documentElement.scrollWidth") <= 400


def test_in_a_browser_it_sorts_filters_and_opens_a_record(text, browser):
    browser.open(text)
    out = browser.run(ACTIONS)
    names = ["dense", "uniform", "logquant3", "prune0 (no effect)", "prune50", "prune95",
             "prune80:random (3 seeds)"]  # fmt: skip
    assert out["at_first"] == [*names, "heads50:l1", "window64:on=cross"]
    best = [
        "dense",
        "prune0 (no effect)",
        "logquant3",
        "prune50",
        "prune95",
        "prune80:random (3 seeds)",
        "uniform",
    ]
    assert out["by_score"] == [*best, "heads50:l1", "window64:on=cross"]  # no score comes last both ways
    assert out["by_score_again"][0] == "uniform" and out["by_score_again"][-2:] == [
        "heads50:l1",
        "window64:on=cross",
    ]
    assert out["aria"] == "ascending"
    assert out["third"] == out["at_first"]
    assert out["by_name"][:3] == ["dense", "heads50:l1", "logquant3"]
    assert out["filtered"] == ["prune0 (no effect)", "prune50", "prune95"] and out["count"] == "3 of 9 rows"
    assert out["open"] and out["closed"] and out["heat"] == 4 and out["seeds"] == 3
    for words in ("prune95: tiny, sst2", "--methods prune95", "settings", "dtype", "abc"):
        assert words in out["record"]
    assert browser.complaints() == [] and browser.requests() == []


def test_a_pointer_and_keys_sort_filter_and_open_a_record(text, browser):
    browser.open(text)
    next(button for button in browser.all("th button") if button.text.startswith("acc")).click()
    assert browser.one("th[aria-sort]").get_attribute("aria-sort") == "descending"
    browser.one("#filter").send_keys("prune -random")
    assert browser.one("#count").text == "3 of 9 rows"
    next(button for button in browser.all("td button") if button.text == "prune95").click()
    assert browser.one("#record").is_displayed() and "prune95: tiny, sst2" in browser.one("#record").text
    browser.key("ESCAPE")
    assert not browser.one("#record").is_displayed()
