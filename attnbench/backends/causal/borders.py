"""Where the contexts of a task's documents end in its requests, as its YAML marks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attnbench.errors import NotApplicable, UserError
from attnbench.inputs import tasks

MARKS = ("context", "question")  # keys of a task's metadata: names of its documents' columns


class Borders:
    """Finds where contexts end. Raises UserError for a mark that the documents do not fit.

    A task marks both, `metadata: {context: COLUMN, question: COLUMN}`, and of a group every task does.
    """

    def __init__(self, file: tasks.TaskFile, loaded: Mapping[str, Any]) -> None:
        self._file = file
        marks = {name: task.config.metadata or {} for name, task in loaded.items()}
        self._columns = {name: {key: each.get(key) for key in MARKS} for name, each in marks.items()}
        named = [column for each in self._columns.values() for column in each.values()]
        self.marked = any(column is not None for column in named)
        if file.ending.after and not self.marked:
            raise UserError(
                f"task '{file.plain}' marks no context that caches could be cut after: leave "
                f"{file.ending.option} out, or name its columns: metadata: {{context: …, question: …}}"
            )
        if self.marked and not all(isinstance(column, str) for column in named):
            raise self._mistake("context and question are names of columns, both, in every task of a group")
        for name, task in loaded.items() if self.marked else ():
            for number, doc in enumerate(task.eval_docs):
                self._require_text(self._columns[name], doc, number)

    def _require_text(self, columns: Mapping[str, str], doc: Mapping[str, Any], number: int) -> None:
        for key, column in columns.items():
            if not isinstance(doc.get(column), str):
                has = "no text" if column in doc else f"no such column, but {', '.join(map(str, doc))}"
                raise self._mistake(f"{key}: {column}: document {number} has {has}")

    def _mistake(self, text: str) -> UserError:
        return UserError(f"{tasks.place(self._file.path, 'metadata')}: task '{self._file.plain}': {text}")

    def __call__(self, request: Any) -> int:
        """Return how many characters of a request come before its context's end, where it stands last.

        Raises NotApplicable where context or question are not to be found there in this order.
        """
        columns, text = self._columns[request.task_name], str(request.args[0])
        # a chat's template may drop the spaces at a message's ends
        context, question = request.doc[columns["context"]].lstrip(), request.doc[columns["question"]].strip()
        told = f"task '{self._file.name}', document {request.doc_id}"
        start = text.rfind(context) if context else -1
        if start < 0:
            raise NotApplicable(f"{told}: its context ('{columns['context']}') is not in its request")
        end = start + len(context)
        if question not in text[end:]:
            raise NotApplicable(
                f"{told}: its question ('{columns['question']}') does not come after its context"
            )
        return end
