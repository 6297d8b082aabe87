"""A file of contexts, questions and answers as a task of lm-eval's: the five columns of kvpress's data sets.

https://github.com/NVIDIA/kvpress/tree/main/evaluation says what they are: context, question, answer_prefix,
answer and max_new_tokens. Other columns are passed over.
"""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Iterator, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from attnbench.backends import own_data
from attnbench.backends.own_data import shown
from attnbench.errors import UserError, near
from attnbench.inputs import tasks
from attnbench.inputs.files import expanded
from attnbench.inputs.json_lines import json_rows

COLUMNS = ("context", "question", "answer_prefix", "answer", "max_new_tokens")
MAY_BE_EMPTY = ("answer_prefix",)
SPLIT = "test"
LARGEST = 1 << 30  # characters of a field


class Contexts(ConfigurableTask):
    """Generate what each document asks for, as many tokens as it says."""

    def construct_requests(self, doc: dict[str, Any], ctx: str, **options: Any) -> Instance:
        """Return one request: greedy decoding, or as --gen-kwargs has it, up to max_new_tokens."""
        how = {"max_gen_toks": doc["max_new_tokens"], **self.config.generation_kwargs}
        return Instance(
            request_type="generate_until", doc=doc, arguments=(ctx, how), idx=0, metadata=options["metadata"]
        )


def asked(doc: dict[str, Any]) -> str:
    """Return what stands before the answer's prefix: context, question and the end of a line."""
    return f"{doc['context']}{doc['question']}\n"


def scores(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score a text p by the answers r_1 ... r_n that it has to hold, in any case of its letters.

    string_match_all = sum_i [r_i in p] / n; string_match_part = max_i [r_i in p], as RULER defines them
    (https://github.com/NVIDIA/RULER/blob/main/scripts/eval/synthetic/constants.py), a document at a time.
    """
    said = re.sub(r"[\x00-\x1f]", "\n", results[0].strip()).strip().lower()
    found = [float(answer.lower() in said) for answer in doc["answer"]]
    return {"string_match_all": sum(found) / len(found), "string_match_part": max(found)}


def task(file: tasks.TaskFile) -> Contexts:
    """Return the task that a file is. Raises UserError with the line or the row of a mistake."""
    rows = read(file.path)

    def documents(**metadata: Any) -> Any:
        from datasets import Dataset, DatasetDict

        return DatasetDict({SPLIT: Dataset.from_list(rows)})

    metric = {"aggregation": "mean", "higher_is_better": True}
    return Contexts(
        config={
            "task": file.name, "custom_dataset": documents, "test_split": SPLIT, "num_fewshot": 0,
            "output_type": "generate_until", "doc_to_text": asked, "gen_prefix": "answer_prefix",
            "doc_to_target": "answer", "process_results": scores,
            "generation_kwargs": {"do_sample": False, "until": []},
            "metric_list": [{"metric": name, **metric} for name in ("string_match_all", "string_match_part")],
            "metadata": {"version": 1, "context": "context", "question": "question"},
        }
    )  # fmt: skip


def read(path: str) -> list[dict[str, Any]]:
    """Read a .jsonl, .csv or .parquet file's documents; an answer is a list of texts, or one."""
    found = [_document(place, row) for place, row in _rows(path)]
    if not found:
        raise UserError(f"{path}: holds no row. Columns: {', '.join(COLUMNS)}.")
    return found


def _rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.lower().endswith(tasks.PARQUET):
        yield from _parquet(path)
        return
    try:
        content = expanded(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}. Save it as UTF-8.") from error
    rows = json_rows if path.lower().endswith(".jsonl") else _csv
    for line, row in rows(path, content):
        yield f"{path}, line {line}", row


def _parquet(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(expanded(path))
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"{path}, row {number}", row


def _csv(path: str, content: str) -> Iterator[tuple[int, dict[str, Any]]]:
    before = csv.field_size_limit(LARGEST)
    try:
        yield from [*own_data.csv_rows(path, content, _once)]
    finally:
        csv.field_size_limit(before)


def _once(place: str, header: Sequence[str]) -> None:
    """Raise UserError for a column that stands twice: which of the two is meant is not known."""
    twice = [name for name in COLUMNS if header.count(name) > 1]
    if twice:
        raise UserError(f"{place}: column '{twice[0]}' stands there twice")


def _document(place: str, row: dict[str, Any]) -> dict[str, Any]:
    for name in COLUMNS:
        if name not in row:
            there, others = ", ".join(map(str, row)), [str(each) for each in row if each not in COLUMNS]
            raise UserError(
                f"{place}: no column '{name}'. It has {there}.{near(name, others)} A language model's "
                f"own data have the columns {', '.join(COLUMNS)}."
            )
    texts = {name: row[name] for name in COLUMNS[:3]}
    for name, text in texts.items():
        if not isinstance(text, str) or not (text.strip() or name in MAY_BE_EMPTY):
            raise UserError(f"{place}: {name} is {'empty' if text in ('', None) else shown(text)}")
    return {
        **texts,
        "answer": _answers(place, row["answer"]),
        "max_new_tokens": _tokens(place, row["max_new_tokens"]),
    }


def _answers(place: str, given: Any) -> list[str]:
    if isinstance(given, str) and given.lstrip().startswith("["):  # as a CSV has a list
        try:
            given = ast.literal_eval(given.strip())
        except (ValueError, SyntaxError):
            raise UserError(f"{place}: answer is {shown(given)}, no list") from None
    found = [str(each) for each in (given if isinstance(given, list) else [given])]
    if given is None or not found or not all(each.strip() for each in found):
        raise UserError(f"{place}: answer is empty")
    return found


def _tokens(place: str, given: Any) -> int:
    text = str(given).strip()
    if not re.fullmatch(r"[0-9]{1,6}", text) or not int(text):
        raise UserError(f"{place}: max_new_tokens is {shown(given)}, no whole number of at least 1")
    return int(text)
