"""The texts that the study of roles brings itself, as one model reads them, and what of them it cannot."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench import UserError
from attnbench_plugins.studies.patterns import relations
from attnbench_plugins.studies.patterns.copies import repeated
from attnbench_plugins.studies.patterns.needles import Needle, haystack
from attnbench_plugins.studies.patterns.words import aligned, sums_and_means

if TYPE_CHECKING:
    import numpy as np

    from attnbench_plugins.studies.patterns.conllu import Sentence

SEQUENCES, LENGTH = 8, 50  # repeated sequences, and tokens in a half of one
HAYSTACKS, SENTENCES = 10, 24  # texts with a needle, and sentences of noise in one
LINES = 1000  # of a corpus, tokenised at a time


@dataclass
class Brought:
    """What is read for one model. `left` counts what is left out: a part of the study, and why."""

    causal: bool
    vocabulary: int
    left: Counter[tuple[str, str]] = field(default_factory=Counter)
    offsets: dict[relations.Kind, int] = field(default_factory=dict)

    def counts(self, path: str, data: Any) -> np.ndarray:
        """Count each token of a file of texts, one a line: (vocabulary,). Raises UserError without it."""
        import numpy as np

        try:
            lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"counts={path}: {error}. Give a file of texts, one a line.") from None
        found = np.zeros(self.vocabulary, dtype=np.int64)
        for start in range(0, len(lines), LINES):
            made = data.tokenizer(lines[start : start + LINES], add_special_tokens=False, verbose=False)
            ids = [token for own in made["input_ids"] for token in own]
            found += np.bincount(ids, minlength=self.vocabulary)[: self.vocabulary]
        return found

    def sentences(self, files: Sequence[Sequence[Sentence]], data: Any) -> list[Any]:
        """Tokenise the sentences that choose and those that report, and find words, arcs and best offsets."""
        if not files:
            self.left["relations", "no treebank: give roles:treebank=FILE"] += 1
        found: list[list[Any]] = [[] for _ in files]
        for part, sentences in enumerate(files):
            for sentence in sentences:
                try:
                    sample = data.sample(sentence.text)
                except UserError:
                    self.left["relations", "sentences longer than the model reads"] += 1
                    continue
                if sample.source.offsets is None:
                    self.left["relations", "the tokenizer does not say where in a text a token stands"] += 1
                    return []
                found[part].append(self._understood(sample, sentence, part))
        if found:
            self.offsets |= relations.best_offsets(sample.about["arcs"] for sample in found[0])
        return [sample for part in found for sample in part]

    def _understood(self, sample: Any, sentence: Sentence, part: int) -> Any:
        """Add to a sample which tokens its words are, and which arcs they have."""
        spans, offsets = [word.span for word in sentence.words], sample.source.offsets.tolist()
        tokens = aligned(sample.text, spans, offsets)
        self.left["relations", "words without a token of their own"] += sum(not mine for mine in tokens)
        arcs = relations.arcs(sentence.words, tokens, self.causal)
        words = sums_and_means(tokens, len(offsets))
        return replace(sample, about={**sample.about, "part": part, "arcs": arcs, "words": words})

    def sequences(self, data: Any) -> list[Any]:
        """Draw random sequences that repeat themselves, as `repeating` does."""
        try:
            return repeating(data, self.vocabulary, SEQUENCES, data.seed)
        except UserError as reason:
            self.left["induction", str(reason)] += 1
            return []

    def needles(self, data: Any) -> list[Any]:
        """Write texts with a needle in them, and find its tokens and those of the answer."""
        found = []
        for number in range(HAYSTACKS):
            text, *spans = haystack(number, HAYSTACKS, SENTENCES, data.seed)
            try:
                sample = data.sample(text)
            except UserError:
                self.left["retrieval", "needles in texts longer than the model reads"] += 1
                continue
            offsets = sample.source.offsets
            needle, answer = aligned(text, spans, [] if offsets is None else offsets.tolist())
            if not needle or not answer or data.tokenizer.unk_token_id in sample.source.ids[list(answer)]:
                self.left["retrieval", "needles in words that the tokenizer does not know, or not where"] += 1
                continue
            at = Needle((needle[0], needle[-1] + 1), (answer[0], answer[-1] + 1))
            found.append(replace(sample, about={**sample.about, "needle": at}))
        return found


def repeating(data: Any, vocabulary: int, count: int, seed: int) -> list[Any]:
    """Draw random sequences that repeat themselves, after what every text of this model begins with.

    Raises UserError for a vocabulary that is too small, or a model that reads less.
    """
    special = set(data.tokenizer.all_special_ids)
    known = sorted(set(range(min(vocabulary, len(data.tokenizer)))) - special)
    if len(known) < LENGTH:
        raise UserError(f"a vocabulary of {len(known)} tokens, sequences of {LENGTH}")
    head = data.sample("a").source.ids.tolist()
    begin = list(itertools.takewhile(special.__contains__, head))
    drawn = [repeated(known, LENGTH, seed, number, begin) for number in range(count)]
    return [data.tokens(ids, begin=len(begin)) for ids in drawn]
