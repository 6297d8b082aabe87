"""HTML that is whole, and names that would break it."""

from __future__ import annotations

from html.parser import HTMLParser

HOSTILE = ["a|b", "x\ny\r\nz", "<script>alert(1)</script>", "</script><b>", '" onclick="x', "../../etc",
           "<!--", "é\u202e\x00x\u2028", "n" * 10_000, "&lt;"]  # fmt: skip

VOID = {"meta", "input", "br"}


class Parser(HTMLParser):
    """Parse HTML, or SVG in it, and insist that every tag is closed in order."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.text.append((self.open[-1] if self.open else "", data))


def parsed(text):
    parser = Parser()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser
