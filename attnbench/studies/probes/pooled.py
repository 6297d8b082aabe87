"""One vector a text, of every head and every layer: read in one pass, kept in half precision."""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from attnbench.engine.places.sites import discover
from attnbench.engine.serving.attention import watch
from attnbench.errors import NotApplicable, UserError
from attnbench.methods.protocol import Site
from attnbench.methods.views import Batch, Data, Sample

PART_OF_METHODS = True  # what is found here is found by a study: its records' identity covers this file

Pooling = Literal["cls", "first", "last", "mean"]
IN_MEMORY = 500_000_000  # bytes; more lie in a file
LARGEST = 1024.0  # what the first batch's largest value is scaled to: half precision ends at 65,504
EMBEDDINGS = -1  # the number of the layer before the first
Key = tuple[str, int, bool]  # kind, layer, whether of the whole layer


class Place(NamedTuple):
    """Where a vector is from: a head's context, or with head -1 the output of a layer (-1: embeddings)."""

    kind: str
    layer: int
    head: int = -1


class Pooled:
    """Vectors of texts (texts, columns) by place, scaled by a power of two each place has of its own.

    `heads` and `layers` list the places. Above IN_MEMORY bytes they lie in a temporary folder that goes with
    this object.
    """

    def __init__(self, texts: int) -> None:
        self.texts = texts
        self.heads: list[Place] = []
        self.layers: list[Place] = []
        self._kept: dict[Key, tuple[np.ndarray, float]] = {}
        self.folder: Path | None = None

    def begin(self, first: dict[Key, Tensor]) -> None:
        """Make room for vectors like those of the first batch: (batch, heads, columns)."""
        needed = sum(2 * self.texts * each[0].numel() for each in first.values())
        if needed > IN_MEMORY:
            self.folder = Path(tempfile.mkdtemp(prefix="attnbench-pooled-"))
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        for number, ((kind, layer, whole), each) in enumerate(first.items()):
            shape = (self.texts, *each.shape[1:])
            if self.folder is None:
                kept = np.empty(shape, dtype=np.float16)
            else:
                path = self.folder / f"{number}.half"
                kept = np.memmap(path, dtype=np.float16, mode="w+", shape=shape)
            top = float(each.abs().max())
            scale = 2.0 ** math.ceil(math.log2(top / LARGEST)) if 0 < top < math.inf else 1.0
            self._kept[kind, layer, whole] = kept, scale
            places = [Place(kind, layer, -1 if whole else head) for head in range(each.shape[1])]
            (self.layers if whole else self.heads).extend(places)

    def write(self, rows: Sequence[int], found: dict[Key, Tensor]) -> None:
        """Keep the vectors of some texts. Raises ArithmeticError for a value beyond half precision."""
        for (kind, layer, whole), each in found.items():
            kept, scale = self._kept[kind, layer, whole]
            half = (each.double() / scale).half()
            if not bool(half.isfinite().all()):
                what = "output" if whole else "heads"
                raise ArithmeticError(
                    f"the {what} of {kind} layer {layer}: not finite, or beyond half precision"
                )
            kept[list(rows)] = half.cpu().numpy()

    def vectors(self, places: Sequence[Place], rows: np.ndarray, other: np.ndarray | None = None) -> Tensor:
        """Return places' vectors side by side (rows, columns), in float32.

        With the rows of each text's pair, |u - v| and u v.
        """
        u = self._read(places, rows)
        if other is None:
            return u
        v = self._read(places, other)
        return torch.cat([(u - v).abs(), u * v], 1)

    def _read(self, places: Sequence[Place], rows: np.ndarray) -> Tensor:
        parts = []
        for place in places:
            kept, scale = self._kept[place.kind, place.layer, place.head < 0]
            parts.append(torch.from_numpy(kept[rows, max(0, place.head)]).float() * scale)
        return torch.cat(parts, 1)

    def width(self, place: Place) -> int:
        """Return how many columns a place's vectors have."""
        return int(self._kept[place.kind, place.layer, place.head < 0][0].shape[2])


def read(
    model: Any, data: Data, texts: Sequence[str], pooling: Pooling | None = None, says: str = ""
) -> Pooled:
    """Read the vector of every text at every head and layer, with the methods that are applied.

    A head's vector is its context at a token, before the output projection; a layer's is its output there, as
    the model's `output_hidden_states` has it (the last one often normed). The token: `cls`, the tokenizer's
    classification token; `first` and `last`, the text's own (special tokens aside, unless there are no
    others); `mean`, the mean over its own. Default: cls where there is one, last for a decoder, else mean.
    EMBEDDINGS, what goes into the first layer, is always a mean: a cls there is the same for every text. Of
    an encoder-decoder the encoder is read.

    Padding counts nowhere. Raises UserError for `cls` where there is none, NotApplicable for a model whose
    heads' context cannot be seen.
    """
    from tqdm import tqdm

    writes = bool(getattr(model.config, "is_encoder_decoder", False))
    samples = [data.sample(text, target=False) for text in texts]
    numbers = {sample.number: k for k, sample in enumerate(samples)}
    cls = getattr(data.tokenizer, "cls_token_id", None)
    pooling = pooling or _default(model, cls, samples[0], writes)
    reader, found = model.get_encoder() if writes else model, Pooled(len(texts))
    with tqdm(total=len(texts), desc=says, unit="text", leave=False, disable=not sys.stderr.isatty()) as bar:
        for batch in data.batches(samples):
            vectors = one_pass(model, reader, batch, pooling, cls)
            if not found.heads:
                found.begin(vectors)
            found.write([numbers[sample.number] for sample in batch.samples], vectors)
            bar.update(len(batch.samples))
    return found


def _default(model: Any, cls: int | None, sample: Sample, writes: bool) -> Pooling:
    if cls in sample.source.ids and not writes:
        return "cls"
    return "last" if any(site.kind == "decoder" for site in discover(model)) and not writes else "mean"


def one_pass(model: Any, reader: Any, batch: Batch, pooling: Pooling, cls: int | None) -> dict[Key, Tensor]:
    """Return (kind, layer, whether of the whole layer) -> vectors (batch, heads or 1, columns)."""
    weights = [torch.from_numpy(shares(sample, pooling, cls)) for sample in batch.samples]
    found: dict[Key, Tensor] = {}

    def see(context: Tensor, site: Site) -> None:
        if site.kind == "cross" or (reader is not model and site.kind != "encoder"):
            return
        key, rows = (site.kind, site.layer, False), context.shape[2]
        if key not in found:
            shape = (len(weights), context.shape[1], context.shape[3])
            found[key] = torch.zeros(shape, dtype=torch.promote_types(context.dtype, torch.float32))
            found[key] = found[key].to(context.device)
        share = torch.stack([weights[k][site.offset : site.offset + rows] for k in site.examples])
        pooled = torch.einsum("bhtd,bt->bhd", context.to(found[key].dtype), share.to(found[key]))
        found[key][site.examples.start : site.examples.stop] += pooled

    with torch.no_grad(), watch(model, context=see):
        output = reader(**batch.inputs, output_hidden_states=True)
    if not found:
        raise NotApplicable("no head reads the text there")
    kind = next(iter(found))[0]
    for layer, hidden in enumerate(output.hidden_states, EMBEDDINGS):
        at = weights
        if layer == EMBEDDINGS:
            at = [torch.from_numpy(shares(sample, "mean", cls)) for sample in batch.samples]
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        share = _placed(at, batch.inputs.get("attention_mask"), hidden).to(wide)
        found[kind, layer, True] = torch.einsum("btd,bt->bd", wide, share)[:, None]
    return found


def _placed(weights: Sequence[Tensor], mask: Tensor | None, hidden: Tensor) -> Tensor:
    """Put the shares of each text's tokens where they stand in the batch (batch, tokens), padding at 0."""
    share = torch.zeros(hidden.shape[:2], dtype=torch.float64)
    for k, each in enumerate(weights):
        share[k, slice(None) if mask is None else mask[k].bool().cpu()] = each
    return share


def shares(sample: Sample, pooling: Pooling, cls: int | None) -> np.ndarray:
    """Return what share of the vector each token of a sample has (tokens,). They sum to 1."""
    ids, own = sample.source.ids, ~sample.source.special
    own = own if own.any() else np.ones_like(own)
    if pooling == "cls":
        own = ids == cls if cls is not None else np.zeros_like(own)
        if not own.any():
            raise UserError("the model's tokenizer sets no classification token: pooling=first, last or mean")
    if pooling != "mean":
        place = np.flatnonzero(own)[-1 if pooling == "last" else 0]
        own = np.arange(len(ids)) == place
    share: np.ndarray = own / own.sum()
    return share
