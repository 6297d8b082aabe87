"""Where the contexts of a task's documents end in its requests, as its YAML marks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attnbench.errors import NotApplicable, UserError
from attnbench.inputs import tasks

MARKS = ("context", "question")  # keys of a task's metadata: names of its documents' columns


class Borders:
    """Finds where contexts end. Raises UserError for a mark that the documents do not fit.

    A task marks its context, and may mark the question after it: `metadata: {context: COLUMN, question:
    COLUMN}`. Of a group every task does.
    """

    def __init__(self, file: tasks.TaskFile, loaded: Mapping[str, Any]) -> None:
        self._file = file
        marks = {name: task.config.metadata or {} for name, task in loaded.items()}
        self._columns = {name: {k: each[k] for k in MARKS if k in each} for name, each in marks.items()}
        self.marked = any(self._columns.values())
        if file.ending.after and not self.marked:
            raise UserError(
                f"task '{file.plain}' marks no context that caches could be cut after: leave "
                f"{file.ending.option} out, or name its column: metadata: {{context: COLUMN}}"
            )
        for name, columns in self._columns.items() if self.marked else ():
            if "context" not in columns:
                raise self._mistake(f"'{name}' marks no context")
            for number, doc in enumerate(loaded[name].eval_docs):
                self._require_text(columns, doc, number)

    def _require_text(self, columns: Mapping[str, str], doc: Mapping[str, Any], number: int) -> None:
        for key, column in columns.items():
            if not isinstance(doc.get(column), str):
                has = "no text there" if column in doc else f"no such column, but {', '.join(map(str, doc))}"
                raise self._mistake(f"{key}: {column}: document {number} has {has}")

    def _mistake(self, text: str) -> UserError:
        return UserError(f"{tasks.place(self._file.path, 'metadata')}: task '{self._file.plain}': {text}")

    def __call__(self, request: Any) -> int:
        """Return how many characters of a request come before its context's end.

        Of the places where it stands it is the last one that the question comes after. Raises NotApplicable
        where there is none.
        """
        columns, text = self._columns[request.task_name], str(request.args[0])
        told = f"task '{self._file.name}', document {request.doc_id}"
        # a chat's template may drop the spaces at a message's ends
        context = request.doc[columns["context"]].lstrip()
        start = text.rfind(context) if context else -1
        if start < 0:
            raise NotApplicable(f"{told}: its context ('{columns['context']}') is not in its request")
        end = start + len(context)
        asked = columns.get("question")
        if asked is None or (question := request.doc[asked].strip()) in text[end:]:
            return end
        # a short context may stand once more in its own question, or in what leads to the answer
        at = text.rfind(question)
        before = -1 if start <= at <= end - len(question) else text.rfind(context, 0, max(at, 0))
        if before < 0:
            raise NotApplicable(f"{told}: its question ('{asked}') does not come after its context")
        return before + len(context)
