"""What heads attend to: positions, special and rare tokens, syntax, and what stood there before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench import Study, UserError, by_head, hookimpl
from attnbench_plugins.studies.patterns import conllu, relations
from attnbench_plugins.studies.patterns.badges import badges
from attnbench_plugins.studies.patterns.copies import Copies, repeated
from attnbench_plugins.studies.patterns.needles import Needle, Retrieved, haystack
from attnbench_plugins.studies.patterns.places import Places, Rows
from attnbench_plugins.studies.patterns.rarest import Rarest
from attnbench_plugins.studies.patterns.words import aligned, between_words, sums_and_means

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame
    from torch import Tensor

    from attnbench import View

TEXT, COUNTS, TREEBANK, REPEATED, NEEDLES = "text", "counts", "treebank", "repeated", "needles"
SEQUENCES, LENGTH = 8, 50  # repeated sequences, and tokens in a half of one
HAYSTACKS, SENTENCES = 10, 24  # texts with a needle, and sentences of noise in one
LINES = 1000  # of a corpus, tokenised at a time


@dataclass
class Roles(Study):
    """Tell what each head attends to: by position, by rarity, by syntax, by what stood there before.

    Tables, a row a head (kind, layer, head) or finer. Weights are probabilities, shares go from 0 to 1; the
    largest weight of a query is one key's alone, or none's. Special tokens are no queries.

    `heads`: `confidence`, mean over queries of max_k p over the keys that are not special, and
    `confidence_all`, special tokens being queries and keys too, as `heads:confidence` counts; `positional`,
    the share of queries with the largest weight at `offset` (key - query in tokens), of those that see a key
    there; `first`, `separator`, `self`: the share at the first token, at special tokens after it, at the query
    itself, and with `_weight` the mean weight there; `sink`: mean weight on the first token from query 16 on.
    Of language models also `previous`, `duplicate`, `induction`: mean weight, in the second half of 8 random
    sequences of 50 tokens that repeat themselves, on the token before, on the same token, on the one after
    it; `retrieval`: the share of an answer's tokens that are copied from a needle in noise.
    `rare`: the `share` of texts whose rarest token (`target` 1), or one of whose two rarest (2), has the
    largest weight, summed over queries, beside `chance` and the best fixed `place`. `counts=FILE`, a text a
    line, says what is rare; without it the texts themselves do. Ties are dropped, and texts whose rarest token
    is among the 500 most frequent.
    `relations`, with `treebank=FILE` in CoNLL-U: of words joined by nsubj, obj, amod or advmod, the share whose
    largest weight is at the other, in both directions, against the best fixed offset. With two files the
    first chooses head and offset and the second reports, one is halved for that. To a split word weights are
    summed, from it averaged; words without tokens of their own are left out; `sentences=` takes the first of
    each file. `roles`: which head has which role. `left_out`: what could not be measured, and how often.

    Shapes: probs (batch, heads, queries, keys). Source: Voita et al. 2019, sections 4 and 5,
    https://arxiv.org/abs/1905.09418; words as Clark et al. 2019, https://arxiv.org/abs/1906.04341; induction
    as Olsson et al. 2022, https://arxiv.org/abs/2209.11895; retrieval as Wu et al. 2024,
    https://arxiv.org/abs/2404.15574. Differs: gold trees where Voita et al. have parsed ones; a query that sees
    one key alone does not count; Wu et al. let the model generate the answer, here it is given.
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
        self.vocabulary = int(model.config.get_text_config().vocab_size)
        self.places, self.rarest, self.copies, self.retrieved = Places(), Rarest(), Copies(), Retrieved()
        self.relations = relations.Relations(), relations.Relations()
        self._words: dict[Any, Tensor] = {}
        if self.dense is None:  # what the others share
            self.corpus: np.ndarray | None = None
            self.offsets: dict[relations.Kind, int] = {}
            self.left: Counter[tuple[str, str]] = Counter()
            self.files = self._read()

    def _read(self) -> list[list[conllu.Sentence]]:
        """Return the sentences that choose, and those that report."""
        files = [conllu.read(path)[: self.sentences or None] for path in self.treebank]
        if len(files) == 1:
            half = len(files[0]) // 2
            return [files[0][:half], files[0][half:]]
        return files

    def samples(self, name: str, data: Any) -> Sequence[Any]:
        """Return sentences, repeated sequences or needles; nothing of what this model cannot have."""
        made = {COUNTS: self._count, TREEBANK: self._sentences, REPEATED: self._repeated, NEEDLES: self._needles}
        return made[name](data)

    def _count(self, data: Any) -> Sequence[Any]:
        """Count the tokens of the corpus that says what is rare."""
        import numpy as np

        if not self.counts:
            return ()
        try:
            lines = Path(self.counts).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"counts={self.counts}: {error}. Give a file of texts, one a line.") from None
        self.corpus = np.zeros(self.vocabulary, dtype=np.int64)
        for start in range(0, len(lines), LINES):
            found = data.tokenizer(lines[start : start + LINES], add_special_tokens=False, verbose=False)
            for ids in found["input_ids"]:
                np.add.at(self.corpus, ids, 1)
        return ()

    def _sentences(self, data: Any) -> Sequence[Any]:
        """Tokenise the treebank's sentences, and find in them words, arcs and the best offset of each arc."""
        if not self.files:
            self.left["relations", "no treebank: give roles:treebank=FILE"] += 1
        found: list[list[Any]] = [[], []]
        for part, sentences in enumerate(self.files):
            for sentence in sentences:
                try:
                    sample = data.sample(sentence.text, part=part, sentence=sentence)
                except UserError:
                    self.left["sentences", "longer than the model reads"] += 1
                    continue
                if sample.source.offsets is None:
                    self.left["relations", "the tokenizer does not say where in a text a token stands"] += 1
                    return ()
                found[part].append(sample)
        arcs = [[self._arcs(sample) for sample in part] for part in found]
        self.offsets |= relations.best_offsets(arcs[0])
        return [*found[0], *found[1]]

    def _arcs(self, sample: Any) -> list[relations.Arc]:
        """Return the arcs of a sentence, which become known of its sample with the words' tokens."""
        words = sample.about["sentence"].words
        spans, offsets = [word.span for word in words], sample.source.offsets.tolist()
        tokens = aligned(sample.text, spans, offsets)
        missing = sum(not mine for mine in tokens)
        if missing:
            self.left["words", "without a token of their own"] += missing
        sample.about["arcs"] = relations.arcs(words, tokens, self.causal)
        sample.about["words"] = sums_and_means(tokens, len(offsets))
        return sample.about["arcs"]

    def _repeated(self, data: Any) -> Sequence[Any]:
        """Draw random sequences that repeat themselves, after what every text of this model begins with."""
        if not self.causal:
            return ()
        import itertools

        known = set(range(min(self.vocabulary, len(data.tokenizer)))) - set(data.tokenizer.all_special_ids)
        head = data.sample("a").source
        begin = [int(i) for i, _ in itertools.takewhile(lambda each: each[1], zip(head.ids, head.special))]
        try:
            if len(known) < LENGTH:
                raise UserError(f"a vocabulary of {len(known)} tokens")
            drawn = [repeated(sorted(known), LENGTH, data.seed, n, begin) for n in range(SEQUENCES)]
            return [data.tokens(ids, begin=len(begin)) for ids in drawn]
        except UserError as reason:
            self.left["induction", str(reason)] += 1
            return ()

    def _needles(self, data: Any) -> Sequence[Any]:
        """Write texts with a needle in them, and find its tokens and those of the answer."""
        if not self.causal:
            return ()
        found = []
        for number in range(HAYSTACKS):
            text, needle, answer = haystack(number, HAYSTACKS, SENTENCES, data.seed)
            try:
                sample = data.sample(text)
            except UserError:
                self.left["retrieval", "longer than the model reads"] += 1
                continue
            tokens = aligned(text, [needle, answer], [] if sample.source.offsets is None else sample.source.offsets.tolist())
            unknown = data.tokenizer.unk_token_id
            if not all(tokens) or unknown in sample.source.ids[list(tokens[1])]:
                self.left["retrieval", "the tokenizer does not know the words, or where they stand"] += 1
                continue
            sample.about["needle"] = Needle(*((mine[0], mine[-1] + 1) for mine in tokens))
            found.append(sample)
        return found
