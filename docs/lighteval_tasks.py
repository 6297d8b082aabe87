"""A task for `attnbench lighteval`, to copy: 200 minimal pairs of the pocket models' text.

The command is in README.md. A file of tasks is lighteval's: it has a list TASKS_TABLE.
"""

import json
import tempfile
from pathlib import Path

from lighteval.metrics.metrics import Metrics
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc

from attnbench.pocket.text import documents

# a dataset's id on the Hub, or as here a folder with a file for each split
DATA = Path(tempfile.gettempdir(), "attnbench-agreement")
DATA.mkdir(exist_ok=True)
PAIRS = documents("agreement", "validation", 200)
(DATA / "validation.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS), encoding="utf-8")


def prompt(line: dict, task_name: str) -> Doc:
    choices = [line["sentence_good"], line["sentence_bad"]]
    return Doc(task_name=task_name, query="", choices=choices, gold_index=0)


TASKS_TABLE = [
    LightevalTaskConfig(
        name="agreement",
        metrics=[Metrics.loglikelihood_acc],
        hf_repo=str(DATA),
        hf_subset="default",
        hf_avail_splits=["validation"],
        evaluation_splits=["validation"],
        prompt_function=prompt,
    )
]
