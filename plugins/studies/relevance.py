"""What an answer rests on: heads and tokens, by relevance that is passed back, gradients and attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from attnbench import Study, by_head, hookimpl
from attnbench_plugins.studies._attributions import LONGEST, by_attention, by_zeroed_values

RULES: tuple[Literal["cp", "attn", "gradient"], ...] = ("cp", "attn", "gradient")
SCORES = ("cp_share", "attn_share", "sensitivity")
SIDES = {"encoder": "source", "decoder": "target"}


@dataclass
class Relevance(Study):
    """Pass the top logit back to heads and tokens, by LRP and by gradients, and count who agrees with whom.

    R = sum of value times gradient, where gradients pass by CP-LRP (`cp`: queries and keys are stopped), by
    AttnLRP (`attn`), or as they are (`gradient`): of a head at its context, over queries and head_dim, which
    for `gradient` is the sum of attention times its gradient; of a token at the first layer's input. The
    logit: a classifier's top class, of a language model the mean over positions of the top token.

    `heads`: means over texts; `cp`, `attn`, `gradient` R in logits, `cp_share`, `attn_share` |R| / sum |R|
    over the layer's heads, by which `heads:lrp` ranks, `sensitivity` the sum over queries of |R| of
    `gradient`, over its layer's L2 norm: `heads:gradient`, of this logit in the place of the loss. `texts`:
    `logit`, and in logits `cp_kept`, `attn_kept`, what of it arrives at tokens: biases take the rest.
    `tokens`, of the first `texts` texts: R in logits; of models with one attention, in texts of up to 128
    tokens, `rollout` and `value_zeroing`, 1 in all, and `gradient_attention`. `agreement`: Spearman's rank
    correlation of two scores over heads, with its 95 % interval over texts.

    Shapes: context (batch, heads, queries, head_dim), probs (batch, heads, queries, keys). Source: Voita et
    al. 2019, https://arxiv.org/abs/1905.09418; the rules: Ali et al. 2022, https://arxiv.org/abs/2202.07304,
    Achtibat et al. 2024, https://arxiv.org/abs/2402.05602; rollout https://arxiv.org/abs/2005.00928, gradient
    x attention https://arxiv.org/abs/2103.15679, value zeroing https://arxiv.org/abs/2301.12971. Differs:
    CP-LRP for Voita's alpha-beta rule; a model with anything that no rule covers is not applicable, by its
    module's name; a method that quantises lets gradients straight through.
    Patent notice: LRP is a patented technology, free of charge for personal and scientific purposes only, as
    the code of AttnLRP's authors says, https://github.com/rachtibat/LRP-eXplains-Transformers. This project's
    licence covers no patent of others.
    """

    name, examples, shown = "relevance", ("relevance",), SCORES
    texts: int = 4

    def __post_init__(self) -> None:
        if self.texts < 0:
            raise ValueError("the number of texts whose tokens are shown is 0 or more")

    def begin(self, model: Any, sites: Any) -> None:
        self.places = sorted({(site.kind, site.layer) for site in sites})
        self.logits: dict[int, dict[str, float]] = {}
        self.heads: dict[int, dict[str, dict[tuple[str, int], Any]]] = {}
        self.tokens: list[Any] = []

    def run(self, model: Any, data: Any) -> None:
        from attnbench import relevance

        for batch in data.batches(data.given):
            found = {rule: relevance(model, batch.inputs, rule) for rule in RULES}
            for k, sample in enumerate(batch.samples):
                one = {rule: {key: x[k].numpy() for key, x in r.heads.items()} for rule, r in found.items()}
                one["sizes"] = {key: x[k].numpy() for key, x in found["gradient"].sizes.items()}
                self.heads[sample.number] = one
                self.logits[sample.number] = {"logit": float(found["gradient"].explained[k])} | {
                    f"{rule}_kept": float(sum(x[k].sum() for x in found[rule].tokens.values()))
                    for rule in RULES[:2]
                }
                if sample.number < self.texts:
                    inputs = {key: value[k : k + 1] for key, value in batch.inputs.items()}
                    parts = {
                        rule: {kind: x[k].numpy() for kind, x in r.tokens.items()}
                        for rule, r in found.items()
                    }
                    self._see_tokens(model, inputs, sample, parts)

    def _see_tokens(self, model: Any, inputs: Any, sample: Any, parts: dict[str, dict[str, Any]]) -> None:
        import pandas as pd

        kinds = list(parts["cp"])
        for kind in kinds:
            tokens = sample.tokens("queries", kind)
            columns = {rule: part[kind] for rule, part in parts.items()}
            if len(kinds) == 1 and len(tokens.ids) <= LONGEST:
                read, rollout, slopes = by_attention(model, inputs, kind == "decoder")
                zeroed = by_zeroed_values(model, inputs, read)
                columns |= {
                    name: x.cpu().numpy()
                    for name, x in {
                        "rollout": rollout, "gradient_attention": slopes, "value_zeroing": zeroed
                    }.items()
                }  # fmt: skip
            index = {"text": sample.number, "side": SIDES[kind], "position": range(len(tokens.ids))}
            self.tokens.append(pd.DataFrame({**index, "token": tokens.names, **columns}))

    def tables(self) -> Any:
        import pandas as pd

        from attnbench import rank_agreement

        texts = sorted(self.heads)
        if not texts:
            return {}
        scores = {name: self._stacked(name) for name in (*RULES, *SCORES)}
        found = {
            "heads": by_head(
                {name: self._apart(self._scaled(name)(x.mean(0)[None])[0]) for name, x in scores.items()}
            ),
            "texts": pd.DataFrame([self.logits[text] for text in texts], index=pd.Index(texts, name="text")),
        }
        pairs = [("cp_share", "sensitivity"), ("attn_share", "sensitivity"), ("cp_share", "attn_share")]
        rows = [
            vars(rank_agreement(scores[a], scores[b], self._scaled(a), self._scaled(b))) for a, b in pairs
        ]
        found["agreement"] = pd.DataFrame(
            rows, index=pd.MultiIndex.from_tuples(pairs, names=["first", "second"])
        ).rename(columns={"low": "spearman_low", "high": "spearman_high"})
        if self.tokens:
            found["tokens"] = pd.concat(self.tokens).set_index(["text", "side", "position", "token"])
        return found

    def _stacked(self, name: str) -> Any:
        """Return one score of every text and head: (texts, heads of all places)."""
        import numpy as np

        def of(one: Any, place: tuple[str, int]) -> Any:
            if name == "sensitivity":
                return one["sizes"][place]
            value = one[name.removesuffix("_share")][place]
            return np.abs(value) / max(np.abs(value).sum(), 1e-300) if name.endswith("_share") else value

        return np.array([
            np.concatenate([of(self.heads[text], place) for place in self.places])
            for text in sorted(self.heads)
        ])  # fmt: skip

    def _scaled(self, name: str) -> Callable[[Any], Any]:
        """Return what makes scores of means: a sensitivity is divided by its layer's L2 norm."""
        import numpy as np

        def scaled(means: Any) -> Any:
            parts = np.split(means, self._edges(), axis=1)
            norms = [np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
            return np.concatenate([x / (norm + 1e-20) for x, norm in zip(parts, norms, strict=True)], 1)

        return scaled if name == "sensitivity" else lambda means: means

    def _apart(self, row: Any) -> dict[tuple[str, int], Any]:
        import numpy as np

        return dict(zip(self.places, np.split(row, self._edges()), strict=True))

    def _edges(self) -> Any:
        import numpy as np

        one = next(iter(self.heads.values()))["cp"]
        return np.cumsum([len(one[place]) for place in self.places])[:-1]


@hookimpl
def register_studies(register: Callable[[type[Study]], None]) -> None:
    register(Relevance)
