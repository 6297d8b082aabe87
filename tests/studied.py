"""What tests of studies share: a tokenizer of numbers, a study that remembers everything, one look."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attnbench import Study
from attnbench.studies.passes import conduct
from attnbench.studies.reading import Reading


class Words:
    """A tokenizer of numbers."""

    all_special_ids, is_fast, model_max_length = [0, 1, 2], False, 10**9

    def convert_ids_to_tokens(self, ids):
        return [f"w{i}" for i in ids]

    def decode(self, ids):
        return " ".join(f"w{i}" for i in ids)


@dataclass
class Everything(Study):
    """Remember each example's rows, as a slow test may."""

    name = "everything"
    found: Any = field(default_factory=lambda: defaultdict(list), init=False)

    def _see(self, what, tensor, site):
        assert len(site.samples) == len(tensor) == (len(site.examples) or len(tensor))
        assert site.ids("queries").shape == (len(tensor), site.rows)
        for k, sample in enumerate(site.samples):
            tokens = sample.tokens("queries", site.kind)
            rows = tokens.ids[site.offset : site.offset + site.rows]
            assert np.array_equal(site.ids("queries")[k].numpy(), rows)
            assert np.array_equal(site.special("queries")[k].numpy(), np.isin(rows, [0, 1, 2]))
            key = (what, site.kind, site.layer, tuple(sample.source.ids))
            self.found[key].append(tensor[k].float().clone().numpy())

    def hidden(self, hidden, site):
        self._see("hidden", hidden, site)

    def scores(self, scores, site):
        self._see("scores", scores, site)

    def probs(self, probs, site):
        assert probs.shape[2:] == (site.rows, site.columns)
        self._see("probs", probs, site)

    def context(self, context, site):
        self._see("context", context, site)


def looked(model, batch, study=None, **more):
    reading = Reading(model, Words())
    (seen,) = conduct(model, [study or Everything()], reading, batches=[reading.taken(batch)], **more)
    assert not seen.failed and not seen.absent, seen
    return seen
