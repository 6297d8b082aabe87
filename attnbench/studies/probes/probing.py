"""Probe a model's heads and layers for one task: its texts read once, a probe on each place or several."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnbench.methods.views import Data
from attnbench.studies.probes import fits
from attnbench.studies.probes.other_weights import fingerprint, loaded, untrained
from attnbench.studies.probes.pooled import Place, Pooled, Pooling, read
from attnbench.studies.probes.tasks import DEV, SPLITS, TEST, TRAIN, Task, find, majority

PART_OF_METHODS = True  # what is found here is found by a study: its records' identity covers this file

__all__ = ["Scores", "Trials", "draws", "find", "fingerprint", "loaded", "majority", "untrained"]

Labels = Mapping[str, np.ndarray]


@dataclass
class Scores:
    """What probes got, one a set of places: on dev, by which they are chosen, and on test.

    Accuracy, of numbers Pearson's correlation. `penalty` is what dev chose, NaN for a probe with hidden
    units; `columns` how wide the vectors were; `right` which samples of test each set gets right, none of
    numbers.
    """

    dev: np.ndarray
    test: np.ndarray
    penalty: np.ndarray
    columns: np.ndarray
    right: np.ndarray  # (sets, samples)

    def order(self) -> list[int]:
        """Sort the sets by their dev scores, the best first; NaN last, of equal ones the first."""
        return sorted(range(len(self.dev)), key=lambda k: (-np.nan_to_num(self.dev[k], nan=-np.inf), k))


class Trials:
    """A task's texts as vectors of a model, with the methods applied, and probes on them.

    `heads` and `layers` list the places that have a vector.
    """

    def __init__(
        self, model: Any, data: Data, task: Task, pooling: Pooling | None = None, hidden: int = 0,
        seed: int = 0, says: str = "",
    ) -> None:  # fmt: skip
        self.task, self.device, self.hidden, self.seed = task, data.device, hidden, seed
        self.says = f"{task.name}{says}: "
        texts = task.distinct()
        number = {text: k for k, text in enumerate(texts)}
        self.rows = {
            split: np.array([[number[text] for text in each] for each in task.texts[split]])
            for split in SPLITS
        }
        self.pooled: Pooled = read(model, data, texts, pooling, f"{self.says}reading")
        self.heads, self.layers = self.pooled.heads, self.pooled.layers

    def score(self, sets: Sequence[Sequence[Place]], what: str, labels: Labels | None = None) -> Scores:
        """Train a probe on each set of places put side by side, for the task's labels or others."""
        from tqdm import tqdm

        labels = self.task.labels if labels is None else labels
        classes = 0 if self.task.number else int(labels[TRAIN].max()) + 1
        right = np.zeros((len(sets), len(labels[TEST]) if classes else 0), dtype=bool)
        found = Scores(*(np.full(len(sets), np.nan) for _ in range(4)), right)  # type: ignore[call-arg]
        found.columns[:] = [
            sum(map(self.pooled.width, places)) * self.rows[TRAIN].shape[1] for places in sets
        ]
        if classes == 1:  # a control whose first word is nearly always the same
            found.dev[:], found.right[:] = np.mean(labels[DEV] == 0), labels[TEST] == 0
            found.test[:] = found.right.mean(1)
            return found
        shown = tqdm(
            total=len(sets), desc=self.says + what, unit="probe", leave=False, disable=not sys.stderr.isatty()
        )
        with shown as bar:
            for columns in np.unique(found.columns):
                alike = np.flatnonzero(found.columns == columns)
                samples = sum(len(self.rows[split]) for split in SPLITS)
                size = fits.room(samples, int(columns), classes)
                for part in np.split(alike, range(size, len(alike), size)):
                    self._train([sets[k] for k in part], labels, classes, part, found)
                    bar.update(len(part))
        return found

    def _train(
        self, sets: Sequence[Sequence[Place]], labels: Labels, classes: int, part: np.ndarray, found: Scores
    ) -> None:
        wanted = {split: torch.from_numpy(labels[split]).to(self.device) for split in SPLITS}
        targets = fits.Targets(wanted[TRAIN], wanted[DEV], classes)
        with torch.no_grad():
            trained = fits.train(
                self._stacked(sets, TRAIN), self._stacked(sets, DEV), targets, self.hidden, self.seed
            )
            # from here on nothing is chosen
            vectors = self._stacked(sets, TEST)
            if classes:
                found.right[part] = trained.right(vectors, wanted[TEST]).cpu().numpy()
                found.test[part] = found.right[part].mean(1)
            else:
                found.test[part] = trained.score(vectors, wanted[TEST]).cpu().numpy()
        found.dev[part], found.penalty[part] = trained.dev.cpu().numpy(), trained.penalty.cpu().numpy()

    def _stacked(self, sets: Sequence[Sequence[Place]], split: str) -> Tensor:
        rows = self.rows[split]
        other = rows[:, 1] if rows.shape[1] > 1 else None
        return torch.stack([self.pooled.vectors(places, rows[:, 0], other) for places in sets]).to(
            self.device
        )


def draws(places: Sequence[Place], size: int, times: int, seed: int = 0) -> list[list[Place]]:
    """Draw `size` places without replacement, so many times."""
    rng = random.Random(f"attnbench random places {seed}")
    return [rng.sample(list(places), min(size, len(places))) for _ in range(times)]
