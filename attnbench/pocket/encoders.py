"""How encoders are taught sentiment and question answering: the task's loss and auxiliary ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from attnbench.pocket import batches, network, tokenizer
from attnbench.pocket.recipes import Lesson, Recipe

if TYPE_CHECKING:
    from torch import Tensor

LAYER = {"asked": 1, "words": 2, "owners": 2, "tags": 3, "clauses": 3, "worths": 3, "total": 4}


class Tutor(nn.Module):
    """The auxiliary heads, thrown away after training: they give many supervised positions a sequence.

    From layer 1: whether a word occurs in the question (qa). From layer 2: an opinion word's own polarity and
    whether it is denied (sentiment), the name of every value's person (qa), which is what breaks the "right
    type, wrong fact" plateau. From layer 3: what an opinion says in the end, how much of it counts and which
    clauses decide (sentiment), which clause answers (qa). From layer 4's first token: the sum (sentiment).
    """

    def __init__(self) -> None:
        super().__init__()
        sizes = {"asked": 2, "words": 4, "owners": network.WIDTH, "tags": 4, "clauses": 2}
        sizes |= {"worths": 1, "total": 1}
        self.heads = nn.ModuleDict({name: nn.Linear(network.WIDTH, size) for name, size in sizes.items()})

    def forward(self, hidden: tuple[Tensor, ...], targets: dict[str, Tensor], words: Tensor) -> Tensor:
        """Return the summed losses; `hidden` are the layers' outputs, `words` the word embeddings."""
        loss = words.new_zeros(())
        for name, target in targets.items():
            if target.ndim == 1:
                loss = loss + mse_loss(self.heads[name](hidden[LAYER[name]][:, 0])[:, 0], target)
                continue
            known = target != batches.IGNORED
            logits = self.heads[name](hidden[LAYER[name]][known])
            if name == "owners":
                logits = logits @ words.T * network.WIDTH**0.5  # words begin about 1 long
            told = target[known]
            loss = loss + (mse_loss(logits[:, 0], told) if name == "worths" else cross_entropy(logits, told))
        return loss


def lesson(family: str, task: str, recipe: Recipe, steps: int) -> Lesson:
    """Set up an untrained encoder and its training for `steps` steps."""
    vocabulary = tokenizer.build(family)
    model = network.build(family, task, vocabulary).train()
    tutor = Tutor()

    def loss(batch: dict[str, Tensor], done: float) -> Tensor:
        targets = {key: batch.pop(key) for key in LAYER if key in batch}
        result = model(**batch, output_hidden_states=True)
        words = model.base_model.embeddings.word_embeddings.weight
        return recipe.share(done) * result.loss + tutor(result.hidden_states, targets, words)

    return Lesson(
        model=model,
        vocabulary=vocabulary,
        tutor=tutor,
        batches=lambda first: batches.stream(
            vocabulary, task, recipe.batch, first, lambda number: recipe.options(number / steps)
        ),
        loss=loss,
    )
