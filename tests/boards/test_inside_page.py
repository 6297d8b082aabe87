"""The page of a look: whole whatever names and tokens say, and within its size."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from looked_at import attention, html, look, page
from parsed_html import HOSTILE, parsed

from attnbench.boards.inside import packing
from attnbench.boards.inside.content import codes, content, told
from attnbench.boards.inside.document import ROOM, embedded, to_html


def embedded_in(parser):
    return json.loads(next(text for tag, text in parser.text if tag == "script" and text.startswith("{")))


def test_the_page_needs_nothing_from_outside():
    text, _, _ = html()
    parser = parsed(text)
    assert not {"src", "href", "action", "data", "srcset"} & {name for name, _ in parser.attributes}
    styles = "".join(data for tag, data in parser.text if tag == "style")
    assert "@import" not in styles and "url(" not in styles and "default-src 'none'" in text
    assert "fetch(" not in text and "XMLHttpRequest" not in text and "innerHTML" not in text
    ids = [value for name, value in parser.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert len(text) - len(embedded(html()[1])) - sum(map(len, html()[2].values())) < ROOM


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_leave_the_page_whole(name):
    of = page(texts=((name, ("[CLS]", name, "[SEP]")),), method=f"m{name}", study=f"s{name}", column=name)
    of["model"] = of["data"] = name
    text, body, _ = html(of, role=f"r{name}")
    parser = parsed(text)
    assert parser.tags.count("script") == 4 and not {"b", "a", "img"} & {*parser.tags}
    assert not any(attribute.startswith("on") for attribute, _ in parser.attributes)
    assert embedded_in(parser) == json.loads(json.dumps(body))
    assert not re.search(r"[\x00\u202e\u2028]", json.dumps(body, ensure_ascii=False))


def test_scores_roles_and_texts_are_those_of_the_look():
    _, body, blobs = html()
    assert [(each["study"], each["name"], each["main"]) for each in body["columns"]] == [
        ("s", "sharp", True), ("s", "other", False)
    ]  # fmt: skip
    assert body["columns"][0]["values"] == [[0, 0.5, 1, 1.5], [0, 0.75, 1, 1.75]]
    assert body["roles"][0] == [[], ["positional"], [], ["first"]]
    assert body["badges"] == {"first": "Fi", "positional": "Po"}
    assert [text["text"] for text in body["texts"]] == ["the soup was good", "no"]
    assert sorted(blobs) == ["maps-0-0", "maps-0-1", "maps-1-0", "maps-1-1"]
    assert any("2 of 3 texts" in line for line in told(body))


def test_what_has_no_number_is_null():
    of = page()
    of["scores"][0]["score"] = None
    assert html(of)[1]["columns"][0]["values"][0][0] is None


def test_codes_are_two_letters_and_unlike():
    names = [
        "first",
        "self",
        "separator",
        "previous",
        "positional",
        "nsubj to head",
        "nsubj of head",
        "s",
        "s-",
    ]
    found = codes(names)
    assert [*found] == names and len({*found.values()}) == len(names)
    assert found["first"] == "Fi" and found["self"] == "Se" and found["separator"] == "Sp"


def test_a_page_has_at_most_the_size_it_may_have():
    of = page(texts=((" ".join("abcdefgh" * 10), tuple("abcdefgh" * 10)),))
    whole = len(to_html_of(of, 10**7))
    for most in (whole, ROOM + 9000, ROOM + 6000):
        text = to_html_of(of, most)
        assert len(text.encode()) <= most
        words = "To keep the file small" in text[: text.index('id="data"')]
        assert words == (len(text) < whole)


def to_html_of(of, most, monkeypatch=pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr("attnbench.boards.inside.document.page_of", lambda _: of)
        return to_html(look(of), most)


def test_maps_with_negative_weights_are_said_and_not_shown():
    of = page()
    of["maps"]["pruned"][0]["encoder", 0][0, 0, 0] = -0.5
    body, blobs = content(look(of), of, 10**6)
    assert sorted(blobs) == ["maps-0-0", "maps-1-0"] and "negative" in body["absent"]["1"]
    assert any(line.startswith("pruned has negative weights") for line in told(body))


def test_no_text_is_a_page_of_scores():
    of = page(texts=())
    text, body, blobs = html(of)
    assert blobs == {} and body["texts"] == [] and parsed(text)


def test_the_scale_that_is_told_is_the_scale():
    line = told(html()[1])[0]
    step = packing.weights(np.array([101]))[0] / packing.weights(np.array([100]))[0]
    assert f"steps of {100 * (step - 1):.2g} %" in line and "right to 3.7 %" in line
    assert attention(5, 0)[0].max() < 1
