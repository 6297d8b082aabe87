"""What the statistics of Ji et al. share: which pairs count, log bins, sums over rows, tokens by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

BINS = 100  # of equal width in log10
LOWEST, HIGHEST = 1e-8, 1.0  # of probabilities
TRACKED = 512  # tokens of a vocabulary that are followed: the first to appear, and all special ones


def edges(low: float = LOWEST, high: float = HIGHEST, bins: int = BINS) -> np.ndarray:
    """Return the bins' edges (bins + 1,), equal steps of log10."""
    import numpy as np

    return np.logspace(np.log10(low), np.log10(high), bins + 1)


def bins_of(values: Tensor, low: float = LOWEST, high: float = HIGHEST, bins: int = BINS) -> Tensor:
    """Return the bin of each value; what is at most the first edge, zeros too, is in the first bin."""
    import math

    step = bins / math.log10(high / low)
    found = values.clamp(min=low / 10).log10_()
    return found.sub_(math.log10(low)).mul_(step).floor_().clamp_(0, bins - 1).long()


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor in float32 at least."""
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor


def visible(probs: Tensor, site: Any) -> tuple[Tensor | None, Tensor]:
    """Return which pairs count (batch, 1, queries, keys), None for all, and each query's number of them."""
    seen = site.visible
    if seen is None:
        return None, probs.new_full((len(probs), 1, probs.shape[2]), probs.shape[3], dtype=wide(probs).dtype)
    seen = seen.expand(len(probs), -1, -1, -1)
    return seen, seen.sum(-1).to(wide(probs).dtype)


def binned(probs: Tensor, site: Any) -> tuple[Tensor, Tensor]:
    """Return each probability's bin, BINS where it is hidden, and each query's counts, once for all studies.

    Shapes (batch, heads, queries, keys) and (batch, heads, queries, bins).
    """

    def make() -> tuple[Tensor, Tensor]:
        values = wide(probs)
        seen, _ = visible(probs, site)
        where = bins_of(values)
        if seen is not None:
            where = where.masked_fill_(~seen, BINS)
        counts = values.new_zeros(*values.shape[:3], BINS + 1)
        counts = counts.scatter_add_(-1, where, values.new_ones(()).expand_as(values))
        return where, counts

    found: tuple[Tensor, Tensor] = site.once("log bins", make)
    return found[0], found[1][..., :BINS]


def rows_with_keys(probs: Tensor, site: Any) -> tuple[Tensor, Tensor]:
    """Return how many keys each query sees, at least 1, and whether it sees any: (batch, 1, queries)."""
    _, count = visible(probs, site)
    return count.clamp(min=1), count > 0


class Sums:
    """Numbers a head, summed in float64: (kind, layer) -> (heads, ...)."""

    def __init__(self) -> None:
        self.of: dict[tuple[str, int], dict[str, Any]] = {}

    def add(self, site: Any, **values: Any) -> None:
        """Add (heads, ...) tensors, or numbers that all heads share."""
        kept = self.of.setdefault((site.kind, site.layer), {})
        for name, value in values.items():
            found = value.double().cpu().numpy() if hasattr(value, "double") else value
            kept[name] = kept.get(name, 0.0) + found

    def most(self, site: Any, name: str, value: Tensor, sign: int = 1) -> None:
        """Keep the largest (heads,) so far, or of `sign` -1 the smallest."""
        import numpy as np

        kept, found = self.of.setdefault((site.kind, site.layer), {}), value.double().cpu().numpy()
        kept[name] = sign * np.maximum(sign * kept.get(name, found), sign * found)

    def column(self, name: str, per: str | None = None) -> dict[tuple[str, int], Any]:
        """Return one sum, or its ratio to another, for `by_head`; 0 / 0 is not a number."""
        import numpy as np

        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                place: kept[name] / (np.float64(1) if per is None else np.asarray(kept[per], dtype=float))
                for place, kept in self.of.items()
            }


def deviation(sums: Sums, total: str, squares: str, count: str) -> dict[tuple[str, int], Any]:
    """Return sqrt(E x^2 - (E x)^2)."""
    import numpy as np

    means, second = sums.column(total, count), sums.column(squares, count)
    return {place: np.sqrt(np.maximum(second[place] - means[place] ** 2, 0)) for place in means}


class ByToken:
    """Means over the occurrences of each token as a query, averaged over heads, in each layer.

    It follows the first TRACKED tokens that appear, and special ones; `frequent` names those seen most.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.slots: dict[int, int] = {}
        self.tokens: list[int] = []
        self.names: list[tuple[str, bool]] = []
        self.sums: dict[tuple[str, int], Any] = {}
        self.counts: dict[tuple[str, int], Any] = {}

    def add(self, site: Any, values: Tensor, real: Tensor) -> None:
        """Add (batch, queries, width), a row for each query token that is `real` (batch, queries)."""
        import torch

        key = site.kind, site.layer
        if key not in self.sums:
            self.sums[key] = torch.zeros(2 * TRACKED + 1, self.width, dtype=torch.float64)
            self.counts[key] = torch.zeros(2 * TRACKED + 1, dtype=torch.float64)
        slots = site.memo.get(("slots", id(self), site.offset, site.examples, site.kind))
        if slots is None:
            slots = torch.tensor([[*self._row(sample, site)] for sample in site.samples])
            site.memo["slots", id(self), site.offset, site.examples, site.kind] = slots
        kept = real.double().cpu().flatten()
        given = values.flatten(0, 1).double().cpu() * kept[:, None]
        self.sums[key].index_add_(0, slots.flatten(), given)
        self.counts[key].index_add_(0, slots.flatten(), kept)

    def _row(self, sample: Any, site: Any) -> Sequence[int]:
        tokens = sample.tokens("queries", site.kind)
        places = range(site.offset, site.offset + site.rows)
        return [self._slot(tokens, place) for place in places]

    def _slot(self, tokens: Any, place: int) -> int:
        token, special = int(tokens.ids[place]), bool(tokens.special[place])
        if token not in self.slots and len(self.names) < (2 * TRACKED if special else TRACKED):
            self.slots[token] = len(self.names)
            self.tokens.append(token)
            self.names.append((tokens.names[place], special))
        return self.slots.get(token, 2 * TRACKED)

    def frequent(self, most: int) -> list[int]:
        """Return the slots of special tokens and of the `most` frequent others, the most frequent first."""
        total = sum(self.counts.values())
        order = sorted(self.slots.values(), key=lambda slot: (-float(total[slot]), self.tokens[slot]))
        plain = [slot for slot in order if not self.names[slot][1]][:most]
        return [slot for slot in order if self.names[slot][1]] + plain

    def label(self, slot: int) -> tuple[str, bool]:
        """Return a token's name, with its id where two have one, and whether it is special."""
        name, special = self.names[slot]
        twins = [token for token, other in self.slots.items() if self.names[other][0] == name]
        return (name if len(twins) < 2 else f"{name}#{self.tokens[slot]}"), special
