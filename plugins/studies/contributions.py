"""What a translation rests on: shares of source and prefix, position by position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attnbench import NotApplicable, Study, hookimpl

WRITTEN = 64  # tokens at most, as where a text is given without a translation


@dataclass
class Contributions(Study):
    """Follow each predicted token of a translation back to the source and to what stands before it.

    The relevance of a position's top logit, 1, is passed back to the inputs of the first encoder and decoder
    layer: of each output half to the inputs that raised it and half to those that lowered it, in proportion
    (alpha = beta = 1/2), rescaled so that none is lost. `prefix` is `own`, what the dense model writes
    itself (greedily, 64 tokens at most), or `reference`, the translation that a task's documents have.

    `positions`: of each target position, named by the token that is read there, `source_share` and
    `prefix_share`, which sum to 1, `start_share`, the start token's part of the latter, and the entropies of
    the shares within each, in nats. `sources`: `influence` of each source token, the mean over target
    positions of its share in the source's, times their number: 1 is an average token. `means`: of
    `positions`, over texts. Shapes: hidden (batch, tokens, hidden), shares (targets, tokens). Source: Voita,
    Sennrich and Titov 2021, https://arxiv.org/abs/2010.10907, and its code,
    https://github.com/lena-voita/the-story-of-heads. Differs: texts of any lengths (there of one length); the
    start token counts as prefix (there it is a zero vector and left out); no epsilon. Its word dropout and
    minimum-risk training are left out.
    Patent notice: LRP is a patented technology, free of charge for personal and scientific purposes only, as
    the code of AttnLRP's authors says, https://github.com/rachtibat/LRP-eXplains-Transformers. This project's
    licence covers no patent of others.
    """

    name, examples = "contributions", ("contributions",)

    def begin(self, model: Any, sites: Any) -> None:
        if not getattr(model.config, "is_encoder_decoder", False) or not model.can_generate():
            raise NotApplicable(
                f"contributions: {type(model).__name__} is no encoder-decoder that writes: it has no source "
                "and no prefix"
            )
        self.positions: list[Any] = []
        self.sources: list[Any] = []

    def run(self, model: Any, data: Any) -> None:
        if self.dense is None:
            self.written = {sample.number: _written(model, data, sample) for sample in data.given}
        else:
            self.written = self.dense.written
        # given texts have no translation but the model's own, which their samples hold then
        references = [
            sample for sample in data.given if sample.target is not None and not self._is_own(sample)
        ]
        for sample in data.given:
            self._see(model, data, sample, "own", self.written[sample.number])
            if references:
                self._see(model, data, sample, "reference", sample.target.ids)

    def _is_own(self, sample: Any) -> bool:
        return list(sample.target.ids) == list(self.written[sample.number])

    def _see(self, model: Any, data: Any, sample: Any, prefix: str, ids: Any) -> None:
        import pandas as pd
        import torch

        from attnbench import contributions

        source, target = (
            torch.as_tensor(each, device=data.device)[None] for each in (sample.source.ids, ids)
        )
        (found,) = contributions(model, {"input_ids": source, "decoder_input_ids": target})
        of_source, of_prefix = found.entropies()
        names = data.tokenizer.convert_ids_to_tokens(found.read.tolist())
        self.positions.append(
            pd.DataFrame({
                "text": sample.number, "prefix": prefix, "position": range(len(names)), "token": names,
                "source_share": found.source.sum(1), "prefix_share": found.prefix.sum(1),
                "start_share": found.prefix[:, 0],
                "source_entropy": of_source, "prefix_entropy": of_prefix,
            })
        )  # fmt: skip
        tokens = sample.source
        self.sources.append(
            pd.DataFrame({
                "text": sample.number, "prefix": prefix, "position": range(len(tokens.ids)),
                "token": tokens.names, "influence": found.influence(),
            })
        )  # fmt: skip

    def tables(self) -> Any:
        import pandas as pd

        if not self.positions:
            return {}
        names = ["text", "prefix", "position", "token"]
        positions = pd.concat(self.positions).set_index(names)
        by_position = positions.groupby(level=["prefix", "position"])
        return {
            "positions": positions,
            "sources": pd.concat(self.sources).set_index(names),
            "means": by_position.mean().assign(texts=by_position.size()),
        }


def _written(model: Any, data: Any, sample: Any) -> Any:
    import torch

    source = torch.as_tensor(sample.source.ids, device=data.device)[None]
    with torch.no_grad():
        found = model.generate(
            input_ids=source, attention_mask=torch.ones_like(source), max_new_tokens=WRITTEN,
            max_length=None, num_beams=1, do_sample=False,
        )  # fmt: skip
    return found[0, :-1].cpu().numpy()  # the last token is read by none


@hookimpl
def register_studies(register: Callable[[type[Study]], None]) -> None:
    register(Contributions)
