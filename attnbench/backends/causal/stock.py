"""lm-eval's stock tasks, and YAML of their form: one or a whole group, read once for all methods."""

from __future__ import annotations

import dataclasses
import functools
from importlib import metadata
from typing import Any

import numpy as np
from lm_eval.evaluator import evaluate

from attnbench.backends.causal import aggregation
from attnbench.backends.causal.borders import Borders
from attnbench.backends.causal.prompts import prompted
from attnbench.backends.causal.stock_files import building, check_targets, keep_documents, load, reading
from attnbench.backends.data import SAMPLES
from attnbench.backends.measurement import code_of, hash_of
from attnbench.errors import NotApplicable, UserError
from attnbench.inputs import tasks
from attnbench.inputs.prompting import Prompting
from attnbench.statistics import aggregates

Document = dict[str, Any]
FORMS = {
    "multiple_choice": "choices", "loglikelihood": "target", "loglikelihood_rolling": "rolling",
    "generate_until": "text",
}  # fmt: skip


class Stock:
    """A task, or the tasks of a group, whose documents are read and whose requests are built once."""

    def __init__(self, file: tasks.TaskFile, limit: int | None, prompting: Prompting, lm: Any) -> None:
        self.file, self.name, self.limit = file, file.name, limit
        self.items: dict[str, list[dict[str, Any]]] = {}
        with reading(file), building(prompting.num_fewshot):
            self.tasks: dict[str, Any] = load(file, lm.tokenizer)
            for task in self.tasks.values():
                keep_documents(task)
                prompted(file, task, prompting)
                task.build_all_requests(
                    limit=limit,
                    system_instruction=prompting.system_instruction,
                    apply_chat_template=prompting.apply_chat_template,
                    fewshot_as_multiturn=prompting.fewshot_as_multiturn,
                    chat_template=lm.apply_chat_template if prompting.apply_chat_template else None,
                )
                check_targets(file, task)
                task.build_all_requests = _built  # lm-eval would build them again at every evaluation
                self._listen(task)
        self.borders = Borders(file, self.tasks)
        self.settings: dict[str, Any] = next(iter(self.tasks.values())).config.metadata or {}
        self.instances = [instance for task in self.tasks.values() for instance in task.instances]
        self._first = _offsets(self.tasks)
        self.definition = hash_of(
            [name, _stable(vars(task.config)), metadata.version("lm-eval")]
            for name, task in self.tasks.items()
        )

    def documents(self) -> dict[tuple[str, int], list[Any]]:
        """Return the requests of each document, in order: (task, number in the task) -> instances."""
        found: dict[tuple[str, int], list[Any]] = {}
        for instance in self.instances:
            found.setdefault((instance.task_name, instance.doc_id), []).append(instance)
        return found

    @property
    def form(self) -> str:
        """Name what an answer is, as `fidelity.Form` does: of a group whose tasks differ in it, a number."""
        kinds = {str(task.OUTPUT_TYPE) for task in self.tasks.values()}
        return FORMS.get(kinds.pop(), "number") if len(kinds) == 1 else "number"

    @property
    def options(self) -> list[int]:
        """Count the choices of each document, of which a request is made each, and maybe one more each."""
        found = []
        for requests in self.documents().values():
            task = self.tasks[requests[0].task_name]
            named = task.doc_to_choice(requests[0].doc) if self.form == "choices" else ()
            found.append(min(len(named) or len(requests), len(requests)))
        return found

    def evaluate(self, lm: Any) -> dict[str, dict[str, Any]]:
        """Let lm-eval evaluate a model. Returns each metric: value, higher_is_better, aggregate, scores.

        A group's metric is over all its samples. Of perplexities of the same log-likelihoods, per word and
        per byte, the first one stays, after what is no perplexity. Raises UserError where no metric can be
        computed again.
        """
        for task in self.tasks.values():
            for instance in task.instances:
                instance.resps, instance.filtered_resps = [], {}
        self.items = {name: [] for name in self.tasks}
        results = evaluate(lm, {"tasks": self.tasks}, limit=self.limit, bootstrap_iters=0, log_samples=False)
        found: dict[str, dict[str, Any]] = {}
        for name, (metric, place, each) in self._metrics().items():
            ours, statistic = aggregation.known(each[0].aggregation()[metric])
            rows = [statistic(item[metric]) for task in each for item in self._of(task.task_name, place)]
            scores = np.array(rows, dtype=np.float64)
            if any(ours == "perplexity" and _same(scores, other["scores"]) for other in found.values()):
                continue
            if ours == "ratio" and len(found) and not scores[:, 1].any():
                continue  # no sample counts: of short texts none is asked in the middle
            value = aggregates.aggregate(ours, scores)
            if len(each) == 1:
                key = f"{metric},{each[0]._filters[place].name}"
                value = float(results["results"][each[0].task_name][key])
            found[name] = {
                "value": value,
                "higher_is_better": bool(each[0].higher_is_better()[metric]),
                "aggregate": ours,
                "scores": scores,
            }
        if not found:
            listed = sorted({name for task in self.tasks.values() for name in task.aggregation()})
            raise UserError(
                f"{tasks.place(self.file.path, 'metric_list')}: task '{self.name}': of its metrics, "
                f"{', '.join(listed)}, none can be computed from its samples' scores."
            )
        return dict(sorted(found.items(), key=lambda item: item[1]["aggregate"] == "perplexity"))

    def ids(self) -> np.ndarray:
        """Number the documents: within a group the tasks follow one another, whatever the limit."""
        return np.array([self._first[task] + number for task, number in self.documents()])

    def _metrics(self) -> dict[str, tuple[str, int, list[Any]]]:
        """Name the metrics, after the filter too where there are several; a group has those in common."""
        each = list(self.tasks.values())
        found = {}
        for place, kind in enumerate(each[0]._filters):
            for metric in self._of(each[0].task_name, place)[0]:
                shared = all(
                    metric in self._of(task.task_name, place)[0]
                    and task.aggregation().get(metric) is each[0].aggregation().get(metric)
                    for task in each
                )
                if shared and aggregation.is_known(each[0].aggregation().get(metric)):
                    name = metric if len(each[0]._filters) == 1 else f"{metric}-{kind.name}"
                    found[name] = (metric, place, each)
        return found

    def _of(self, task: str, place: int) -> list[dict[str, Any]]:
        size = len(self.items[task]) // len(self.tasks[task]._filters)
        return self.items[task][place * size : (place + 1) * size]

    def _listen(self, task: Any) -> None:
        process = task.process_results

        @functools.wraps(process)
        def listening(doc: Document, results: list[Any]) -> dict[str, Any]:
            found = process(doc, results)
            self.items[task.task_name].append(found)
            return found

        task.process_results = listening

    # calibration, as `calibration.source` asks for it

    def calibration_split(self) -> tuple[str, int]:
        """Return the split that methods are fitted on and how many samples of it. Raises NotApplicable."""
        named = self.settings.get("calibration")
        if named:
            return named["split"], int(named["samples"])
        splits = {task.config.training_split for task in self.tasks.values()}
        if None in splits or len(splits) > 1:
            raise NotApplicable(f"task '{self.name}' has no training split: give --calibration DATASET:SPLIT")
        return splits.pop(), SAMPLES

    def learnable(self, split: str) -> list[Any]:
        """Return the requests of a split's documents, of each the one with the right answer."""
        found = []
        with reading(self.file), building():
            for task in self.tasks.values():
                if split not in task.dataset:
                    raise UserError(
                        f"task '{self.name}' has no split '{split}'. It has {', '.join(task.dataset)}."
                    )
                docs = task.dataset[split]
                docs = task.config.process_docs(docs) if task.config.process_docs else docs
                found += [_right(task, doc) for doc in docs]
        return found

    def plainly(self, request: Any) -> Any:
        """Return the request that `learnable` makes of an evaluated document, whatever its prompt is.

        An evaluated prompt may have examples before it, be a chat, or ask for a text to be written.
        """
        return _right(self.tasks[request.task_name], request.doc)


def _same(scores: np.ndarray, others: np.ndarray) -> bool:
    return others.ndim == 2 and bool((scores[:, 0] == others[:, 0]).all())


def _offsets(loaded: dict[str, Any]) -> dict[str, int]:
    sizes = [len(task.eval_docs) for task in loaded.values()]
    return dict(zip(loaded, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))


def _built(**options: Any) -> None:
    return None


def _right(task: Any, doc: Document) -> Any:
    """Return a document's request with its right answer; a generated one as the text to be scored."""
    context = task.fewshot_context(doc, num_fewshot=0, gen_prefix=task.doc_to_prefix(doc))
    built = task.construct_requests(doc, context, metadata=(task.task_name, 0, 1))
    target = task.doc_to_target(doc)
    if isinstance(built, list) and task.OUTPUT_TYPE != "multiple_choice":
        return built[0]
    if isinstance(built, list):
        if task.multiple_input:
            target = task.doc_to_text(doc)
        first = target[0] if isinstance(target, list) else target
        if isinstance(first, str):
            first = task.doc_to_choice(doc).index(first)
        return built[first]
    if built.request_type == "generate_until":
        answer = target[0] if isinstance(target, list) else target
        built.request_type = "loglikelihood"
        built.arguments = (context, f"{task.config.target_delimiter}{answer}")
    return built


def _stable(value: Any) -> Any:
    """Return a configuration as JSON: functions by their code, without paths and descriptions."""
    if callable(value):
        try:
            return code_of(value)
        except (TypeError, OSError):
            return str(getattr(value, "__qualname__", type(value).__qualname__))
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        left_out = ("config_source", "description")
        return {str(key): _stable(item) for key, item in value.items() if key not in left_out}
    return [_stable(item) for item in value] if isinstance(value, (list, tuple)) else value
