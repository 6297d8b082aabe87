"""Evaluate a causal language model on lm-eval's stock tasks: by name, by group, or by YAML of that form."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any, Unpack, cast

import numpy as np
from torch import Tensor, nn

from attnbench.backends import alone, kinds
from attnbench.backends import calibration as calibration_
from attnbench.backends.causal import padding, rolling, texts
from attnbench.backends.causal.inputs import Inputs, Row, heads_of
from attnbench.backends.causal.model import CausalLM
from attnbench.backends.causal.prompts import require_template
from attnbench.backends.causal.stock import Stock
from attnbench.backends.encoders import limits
from attnbench.backends.encoders.inputs import padded
from attnbench.backends.measurement import Measurement, hash_of, of_texts
from attnbench.backends.served import BATCH_SIZE, Serving
from attnbench.engine.learning.gates import IGNORED
from attnbench.errors import Misfit, UserError
from attnbench.inputs import tasks
from attnbench.inputs.settings import Settings
from attnbench.measures.fidelity import Form
from attnbench.measures.likely import Likely
from attnbench.records.schema import PLACED
from attnbench.statistics.inference import standard_error

TOKENS = 1 << 16  # of calibration at most: 64 windows of 1,024, all 512 samples of 128
ENTRIES = 1 << 28  # attention entries, of all heads, in a batch that is learned from: a gradient keeps them
WINDOW = 512  # tokens of a calibration text at a time, more where more are evaluated


class PreparedCausal:
    """A stock task made ready for one causal checkpoint; any number of methods can be evaluated on it."""

    head = "causal-lm"

    def __init__(self, file: tasks.TaskFile, checkpoint: Any, settings: Settings) -> None:
        self.file = file
        self._checkpoint, self._settings = checkpoint, settings
        of = (checkpoint.config(), checkpoint.tokenizer(), settings.max_length)
        self._lm = CausalLM(*of, file.ending.prompt)
        if settings.prompting.apply_chat_template:
            require_template(self._lm.tokenizer, checkpoint.name, f"task '{file.name}'")
        self.task = Stock(file, settings.limit, settings.prompting, self._lm)
        rolling.require_texts(file, self.task.form)
        if self.task.borders.marked and file.ending.after != "question":
            self._lm.ends.border = self.task.borders
        self._documents = self.task.documents()
        self.samples = len(self._documents)
        named = (settings.calibration or "").partition(":")[0]
        if tasks.is_texts(named):
            texts.of(named)  # mistakes in it come before anything is measured
        self._learning = Inputs(*of)  # what is learned from has no prompt
        self._heads = heads_of(checkpoint.config())
        self._lm.inputs.rows(self.task.instances)
        rolling.require_scored(file, self._lm.inputs)
        evaluated = [len(row.ids) for rows in self._lm.inputs.rows(self.task.instances) for row in rows]
        self._learning.window = min(self._learning.longest, max(WINDOW, *evaluated))
        self.fingerprints: dict[str, str | None] = {
            "dataset": hash_of(self._said(requests) for requests in self._documents.values()),
            "task": self.task.definition,
            "source": f"lm-eval {metadata.version('lm-eval')}",
            "calibration": calibration_.recipe(cast(Any, self.task), file, settings),
        }

    @property
    def notes(self) -> list[str]:
        """Say what a reader of the numbers has to know."""
        cut, limit = self._lm.inputs.cut, self._lm.max_length
        writes = any(request.request_type == "generate_until" for request in self.task.instances)
        return [
            f"{cut} of {len(self.task.instances)} requests of task '{self.file.name}' are longer than the "
            f"{limit} tokens the model takes{', with the answer' * writes}: they lose their beginning"
        ] * (cut > 0) + rolling.notes(self.file, self._lm.inputs)

    def check(self, model: nn.Module) -> None:
        """Raise Misfit where the model is no causal one: it would see what it has to predict."""
        if kinds.kind(model.config) != "causal":
            raise Misfit(
                f"model '{self._checkpoint.name}' ({type(model).__name__}) is no causal language model: on "
                f"task '{self.file.name}' it would see what it has to predict."
            )
        require_room(model, self._lm, self.task.instances)

    def suit(self, model: nn.Module, requests: Sequence[Any], tolerance: float, device: str) -> str | None:
        """Return why the model has to read one text at a time, None where it has not."""
        with self.serving(model, device=device) as lm:
            gap = padding.gap(lm, requests)
        return None if gap <= tolerance else alone.ALONE.format(gap)

    def extremes(self, model: nn.Module, requests: Sequence[Any]) -> list[dict[str, Tensor]]:
        """Return the longest and the shortest input, each alone, of whose outputs the first is enough."""
        return self._lm.extremes(model, requests)

    @functools.cached_property
    def form(self) -> Form:
        """Return what an answer to this task is."""
        return Form(self.task.form, self.task.options)

    def evaluate(
        self, model: nn.Module, ids: np.ndarray | None = None, **options: Unpack[Serving]
    ) -> Measurement:
        """Measure the model as it is now; `ids` are dense's likeliest tokens, where targets are scored.

        Raises ArithmeticError where a log-likelihood is not finite.
        """
        given = self._lm.inputs.rows(self.task.instances)
        targets = [sum(len(row.targets) for row in rows) for rows in given]
        sizes = {id(each): size for each, size in zip(self.task.instances, targets, strict=True)}
        samples = [[(each, sizes[id(each)]) for each in asked] for asked in self._documents.values()]
        likely = Likely(samples, ids) if self.form.name in ("target", "rolling") else None
        share, progress = self.samples / len(self.task.instances), options.get("progress")
        if progress is not None:
            options["progress"] = lambda requests: progress(int(requests * share))
        with self.serving(model, **options) as lm:
            lm.likely = likely
            if self.file.ending.prompt:
                found = rolling.evaluate(self.task.instances, lm, targets)
            else:
                found = self.task.evaluate(lm)
        scores = {"doc_id": self.task.ids(), **{name: each.pop("scores") for name, each in found.items()}}
        return Measurement(
            metrics={
                name: {**each, "stderr": standard_error(each["aggregate"], [scores[name]])}
                for name, each in found.items()
            },
            scores=scores | _places(list(self._documents.values())),
            outputs=_outputs(list(self._documents.values())),
            likely=likely.recorded() if likely else {},
        )

    @contextlib.contextmanager
    def serving(self, model: nn.Module, **options: Unpack[Serving]) -> Iterator[CausalLM]:
        """Give lm-eval's evaluator this model until the block ends."""
        with self._lm.serving(model, **options) as lm:
            yield lm

    def batches(self, n: int, batch_size: int = BATCH_SIZE) -> list[dict[str, Tensor]]:
        """Return an input of each of the first n evaluation samples, the longest first."""
        first = [requests[0] for requests in list(self._documents.values())[:n]]
        inputs = [rows[0].ids for rows in self._lm.inputs.rows(first) if rows]
        inputs.sort(key=lambda ids: -len(ids))
        parts = [inputs[k : k + batch_size] for k in range(0, len(inputs), batch_size)]
        return [self._lm.inputs.collate(part) for part in parts]

    def calibration(self, batch_size: int = BATCH_SIZE) -> list[dict[str, Tensor]]:
        """Return calibration texts as model inputs, their labels -100 where nothing is to be predicted.

        Raises NotApplicable without a calibration split, UserError where a text is also evaluated.
        """
        rows = [row for windows in self._calibration_rows() for row in windows]
        if not rows:
            raise UserError(
                f"calibration of task '{self.file.name}': its texts hold no token to predict. "
                "Give --calibration DATASET:SPLIT."
            )
        rows.sort(key=lambda row: -len(row.ids))
        made, start = [], 0
        while start < len(rows):
            most = ENTRIES // (self._heads * len(rows[start].ids) ** 2)
            part = rows[start : start + max(1, min(batch_size, most))]
            start += len(part)
            # the last target follows the input: a model that shifts its labels has no place for it
            whole = [(*row.ids, row.targets[-1])[: self._lm.max_length] for row in part]
            wanted = [(*[IGNORED] * (len(row.ids) + 1 - len(row.targets)), *row.targets) for row in part]
            labels = [line[: self._lm.max_length] for line in wanted]
            made.append({**self._lm.inputs.collate(whole), "labels": padded(labels, IGNORED)[0]})
        random.Random(f"{self._settings.seed} batches").shuffle(made)
        return made

    def calibration_documents(self) -> list[tuple[str, ...]]:
        """Return the texts that `calibration` makes its batches of. Raises as it does."""
        return [tuple(map(str, request.args)) for request in self._drawn]

    def calibration_fingerprint(self) -> str:
        """Hash the calibration texts, and how they are cut. Raises as `calibration` does."""
        window, longest = self._learning.window, self._learning.longest
        return hash_of([*self.calibration_documents(), *[window] * (window != longest)])

    def _calibration_rows(self) -> list[list[Row]]:
        found, tokens = [], 0
        for windows in self._learning.rows(self._drawn):
            kept = []
            for row in windows:
                if row.targets and tokens < (self._settings.calibration_tokens or TOKENS):
                    kept.append(row)
                    tokens += len(row.ids)
            found.append(kept)
        return found

    @functools.cached_property
    def _drawn(self) -> list[Any]:
        settings = self._settings
        source = calibration_.source(cast(Any, self.task), settings.calibration, settings.calibration_samples)
        if source.dataset is None:
            requests = self.task.learnable(source.split)
        else:
            requests = [_Text(text) for text in texts.of(*source.dataset, source.split)]
        calibration_.require(requests, self.file.name, source)
        count = min(source.samples, len(requests))
        chosen = random.Random(f"{self._settings.seed} calibration").sample(range(len(requests)), count)
        first = [self.task.plainly(requests[0]) for requests in self._documents.values()]
        evaluated = {hash(calibration_.plain(request.args)) for request in (*self.task.instances, *first)}
        shared = [k for k in chosen if hash(calibration_.plain(requests[k].args)) in evaluated]
        if shared:
            raise UserError(
                f"{len(shared)} of {count} calibration samples of task '{self.file.name}' are evaluated too, "
                f"such as {' '.join(requests[shared[0]].args)[:60]!r}. Give --calibration DATASET:SPLIT."
            )
        return [requests[k] for k in chosen]

    def _said(self, requests: Sequence[Any]) -> list[Any]:
        task = self.task.tasks[requests[0].task_name]
        return [*(request.args for request in requests), task.doc_to_target(requests[0].doc)]


class _Text:
    """A text to learn a language from, as a request."""

    request_type = "loglikelihood_rolling"

    def __init__(self, text: str) -> None:
        self.args = (text,)


def require_room(model: nn.Module, lm: CausalLM, requests: Sequence[Any]) -> None:
    """Raise UserError for a request that is longer than the model has positions."""
    limit = limits.of(model).positions
    if limit is not None and limit < lm.inputs.longest:
        limits.require_short(limit, requests, lm.inputs.rows(requests), ())


def prepare(file: tasks.TaskFile, checkpoint: Any, settings: Settings) -> PreparedCausal:
    """Load a stock task, build and tokenise its requests. Raises UserError."""
    return PreparedCausal(file, checkpoint, settings)


def _places(documents: Sequence[Sequence[Any]]) -> dict[str, np.ndarray]:
    """Return where in its text each document asks, and how long that is, where columns of it say so."""
    told = {name: [requests[0].doc.get(name) for requests in documents] for name in PLACED}
    whole = all(isinstance(value, int | float) for values in told.values() for value in values)
    return {name: np.array(values, float) for name, values in told.items()} if whole else {}


def _outputs(documents: Sequence[Sequence[Any]]) -> list[np.ndarray]:
    """Return each document's log-likelihoods, filled up with zeros, or what stands for its texts."""
    answers = [[request.resps[0] for request in requests] for requests in documents]
    if isinstance(answers[0][0], str):
        return [of_texts(texts) for texts in answers]
    values = [[each[0] if isinstance(each, tuple) else each for each in found] for found in answers]
    most = max(map(len, values))
    return [np.array([*found, *[0.0] * (most - len(found))]) for found in values]
