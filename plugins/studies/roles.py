"""What heads attend to: positions, special and rare tokens, syntax, and what stood there before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench import Study, by_head, hookimpl
from attnbench_plugins.studies.patterns import conllu, relations
from attnbench_plugins.studies.patterns.badges import badges
from attnbench_plugins.studies.patterns.brought import LENGTH, Brought
from attnbench_plugins.studies.patterns.copies import Copies
from attnbench_plugins.studies.patterns.needles import Retrieved
from attnbench_plugins.studies.patterns.places import Places, Rows
from attnbench_plugins.studies.patterns.rarest import Rarest
from attnbench_plugins.studies.patterns.words import between_words

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

    from attnbench import View

TEXT, COUNTS, TREEBANK, REPEATED, NEEDLES = "text", "counts", "treebank", "repeated", "needles"


@dataclass
class Roles(Study):
    """Tell what each head attends to: by position, by rarity, by syntax, by what stood there before.

    Tables have a row a head (kind, layer, head) or finer; weights are probabilities, shares go from 0 to 1.
    Special tokens are no queries. The largest weight of a query is at one key alone, or nowhere.

    `heads`: `confidence`, mean over queries of max_k p over the keys that are not special; `confidence_all`
    with special tokens as queries and keys, as `heads:confidence` counts. `positional`, the share of queries
    with the largest weight at `offset` (key - query, in tokens), of those that see a key there. `first`,
    `separator`, `self`: shares with it at the first token, at a special token after it, at the query itself;
    with `_weight` the mean weight there. `sink`: mean weight on the first token from query 16 on. Of language
    models also mean weights in the second half of 8 random sequences of 50 tokens that come twice: `previous`
    on the token before, `duplicate` on the same token, `induction` on the one after that; and `retrieval`,
    the share of an answer's tokens that are copied from a needle in noise.

    `rare`: the `share` of `texts` whose rarest token (`target` 1), or one of whose two rarest (2), has the
    largest weight summed over queries, beside `chance` and the best fixed `place`. What is rare says
    `counts=FILE`, a text a line, without it the texts themselves. Ties are left out, and texts whose rarest
    token is among the 500 most frequent.

    `relations`, with `treebank=FILE` in CoNLL-U: of words joined by nsubj, obj, amod or advmod the share that
    has its largest weight at the other, in both directions, beside the best fixed offset in words. Of two
    files the first chooses head and offset and the second reports; one file is halved. To a split word
    weights are summed, from it averaged. `sentences=` reads the first of each file.

    `roles`: which head has which role. `left_out`: what was not measured, why, and how much of it.

    Shapes: probs (batch, heads, queries, keys). Source: Voita et al. 2019, sections 4 and 5,
    https://arxiv.org/abs/1905.09418; words as Clark et al. 2019, https://arxiv.org/abs/1906.04341; induction
    as Olsson et al. 2022, https://arxiv.org/abs/2209.11895; retrieval as Wu et al. 2024,
    https://arxiv.org/abs/2404.15574. Differs: gold trees where Voita et al. parse; a query that sees one key
    alone does not count; Wu et al. let the model write the answer, here it is given.
    """

    name, examples, shown = "roles", ("roles",), ("confidence", "positional", "first_weight")
    data = (TEXT, COUNTS, TREEBANK, REPEATED, NEEDLES)

    treebank: tuple[str, ...] = field(default=(), kw_only=True)
    counts: str = field(default="", kw_only=True)
    sentences: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if len(self.treebank) > 2:
            raise ValueError("treebank= is given once, or twice: a file that chooses and one that reports")
        if self.sentences < 0:
            raise ValueError("sentences= is how many of a treebank are read, 0 for all")

    def begin(self, model: Any, sites: Any) -> None:
        paired = getattr(model.config, "is_encoder_decoder", False)
        self.causal = not paired and all(site.kind == "decoder" for site in sites)
        self.places, self.rarest, self.copies, self.retrieved = Places(), Rarest(), Copies(), Retrieved()
        self.relations = relations.Relations(), relations.Relations()
        self.between: dict[Any, Tensor] = {}
        self.known: dict[Any, Any] = {}
        if self.dense is None:  # what all share
            self.brought = Brought(self.causal, int(model.config.get_text_config().vocab_size))
            self.corpus: Any = None
            self.files = [conllu.read(path)[: self.sentences or None] for path in self.treebank]
            if len(self.files) == 1:
                half = len(self.files[0]) // 2
                self.files = [self.files[0][:half], self.files[0][half:]]

    def samples(self, name: str, data: Any) -> list[Any]:
        """Return sentences, repeated sequences, needles: nothing of what this model cannot have."""
        if not callable(data.tokenizer):  # a batch was given, and nothing that reads texts
            self.brought.left["texts of its own", "there is no tokenizer"] = 1
            return []
        if name == COUNTS and self.counts:
            self.corpus = self.brought.counts(self.counts, data)
        if name == TREEBANK:
            return self.brought.sentences(self.files, data)
        if self.causal and name == REPEATED:
            return self.brought.sequences(data)
        if self.causal and name == NEEDLES:
            return self.brought.needles(data)
        return []

    def probs(self, probs: Tensor, site: View) -> None:
        key, samples = (site.kind, site.layer), site.samples
        if site.data == TEXT:
            self._text(key, probs, site)
        elif site.data == TREEBANK:
            if samples[0].target is None or site.kind == "encoder":
                self._sentences(key, probs, site)
        elif site.data == REPEATED:
            self.copies.add(key, probs, LENGTH, samples[0].about["begin"], site.offset)
        else:
            ids, needles = zip(*((each.source.ids, each.about["needle"]) for each in samples), strict=True)
            self.retrieved.add(key, probs, ids, needles, site.offset)

    def _text(self, key: tuple[str, int], probs: Tensor, site: View) -> None:
        rows, texts = self._rows(probs, site)
        self.places.add(key, probs, rows)
        last = site.offset + site.rows == len(site.samples[0].tokens("queries", site.kind).ids)
        self.rarest.add(key, probs, ~rows.queries, texts, last)

    def _rows(self, probs: Tensor, site: View) -> tuple[Rows, Any]:
        """Return what the layers of one pass share: of which tokens a tile is, and of which texts."""
        at = (site.kind, site.batch, site.examples, site.offset, site.rows, site.columns)
        rows, texts = self.known.get(at, (None, None))
        if rows is None or not _same(rows.visible, site.visible):  # not as in the last layer: it has a window
            queries, keys = (site.special(side).to(probs.device) for side in ("queries", "keys"))
            separators = keys.clone()
            separators[:, 0] = False
            visible = None if site.visible is None else site.visible.clone()
            rows = Rows(queries, keys, separators, visible, site.offset)
            tokens = {each.number: each.tokens("keys", site.kind) for each in site.samples}
            texts = {(site.batch, number): (mine.ids, ~mine.special) for number, mine in tokens.items()}
            if any(other[1] != site.batch for other in self.known):
                self.known.clear()
            self.known[at] = rows, texts
        return rows, texts

    def _sentences(self, key: tuple[str, int], probs: Tensor, site: View) -> None:
        for row, sample in zip(probs, site.samples, strict=True):
            to, of = (each.to(row.device) for each in sample.about["words"])
            rows = slice(site.offset, site.offset + site.rows)
            part = between_words(row.double(), of[:, rows], to[:, : site.columns])
            weights = self.between.pop((*key, sample.number), 0) + part
            if rows.stop < of.shape[1]:
                self.between[(*key, sample.number)] = weights
            else:
                found = self.relations[sample.about["part"]]
                found.add(key, weights, sample.about["arcs"], (self.dense or self).brought.offsets)

    def tables(self) -> dict[str, DataFrame]:
        """Return `heads`, `roles`, `left_out`, and `rare` and `relations` where there are any."""
        shared = self.dense or self
        columns = {**self.places.columns(), **self.copies.columns(), **self.retrieved.columns()}
        found = {"heads": by_head({name: values for name, values in columns.items() if values})}
        rare = self.rarest.table(self.rarest.counts() if shared.corpus is None else shared.corpus)
        found |= {} if rare.empty else {"rare": rare}
        chosen, reported = self.relations
        compared = relations.compared(chosen, reported, shared.brought.offsets)
        found |= {} if compared.empty else {"relations": compared}
        left = dict(shared.brought.left)
        if rare.empty:
            left["rare", "no text's rarest token is beyond the 500 most frequent: give counts=FILE"] = 1
        return found | {"roles": badges(found), "left_out": _left_out(left)}


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and bool((one == other).all()))


def _left_out(left: dict[tuple[str, str], int]) -> DataFrame:
    """Return a row for each part and reason: `number` of texts, words, or 1 for the part itself."""
    import pandas as pd

    rows = [(*what, number) for what, number in sorted(left.items()) if number]
    return pd.DataFrame(rows, columns=["part", "why", "number"]).set_index(["part", "why"])


@hookimpl
def register_studies(register: Callable[[type[Study]], None]) -> None:
    register(Roles)
