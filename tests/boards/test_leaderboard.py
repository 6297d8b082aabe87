"""Tables as they are read: a small one by heart, hostile names, pocket models apart."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from sample_records import board, missing, record, right

from attnbench.boards.tables import footnotes
from attnbench.boards.tables.leaderboard import render, to_json
from attnbench.boards.tables.text import KEEP, RANGE, Screen
from attnbench.errors import UserError
from attnbench.records.record import path_of
from attnbench.statistics import against_dense

GOLDEN = Path(__file__).with_name("board.txt")


def test_terminal_table():
    assert render(board(), format="text") + "\n" == GOLDEN.read_text(encoding="utf-8")


TASKS = ("sst2", "a-task-with-a-long-name")


def several():
    """Return records of several models and tasks: two metrics, seeds, long names, costs, long reasons."""
    items = board()
    f1 = np.where(right(1000, 80) == 1, 1, 0.5)
    for model, task in (("a-model-of-a-long-name", TASKS[1]), ("tiny", "squad"), ("other", "sst2")):
        items += [record(m, model=model, task=task, em=right(1000, w), f1=np.clip(f1 - w / 1e4, 0, 1))
                  for m, w in (("dense", 80), ("uniform", 900), ("prune80", 95), ("logquant3", 81),
                               ("heads50:gradient:per-layer:layers=0-3+prune80+logquant3", 85))]  # fmt: skip
        items.append(missing("prune95", "failed", "prune95: ValueError: " + "a reason of many words " * 9,
                             model=model, task=task))  # fmt: skip
    return costly(items)


def costly(items):
    for item in items[:12]:
        item.measured |= {
            "sparsity": 0.8, "bits": 3.0, "entropy": 1.2, "divergence": 0.1, "heads": 0.5,
            "latency": {"ratio": 0.8, "low": 0.7, "high": 0.9}, "memory": {"ratio": 0.9},
        }  # fmt: skip
    return items


@pytest.mark.parametrize("width", [80, 100, 120, 160, 250])
@pytest.mark.parametrize(("legend", "whole"), [(False, False), (True, True)])
def test_everything_fits_the_screen_and_no_word_is_cut(width, legend, whole):
    items = several()
    text = render(items, "text", screen=Screen(width, legend, whole))
    assert max(map(len, text.splitlines())) <= width
    words = set(render(items, "text").split())
    cut = [word for word in words if word.startswith(("a-model", "a-task", "heads", "prune"))]
    assert all(word.rstrip(":;,") in text for word in cut)
    assert " ".join(["a reason of many words"] * 9) in " ".join(text.split())
    shown = text.splitlines()[2]
    for name in KEEP:
        there = re.search(rf"(^|  ){re.escape(name)}(  |$)", shown) if name != RANGE else "82.0–86.0" in text
        told = re.search(
            rf"No room at {width} columns for [^:]*\b{re.escape(name)}\b", " ".join(text.split())
        )
        found = any(name in line for line in render(items, "text").splitlines()[2:3]) or name == RANGE
        assert bool(there) != bool(told) or not found, name


def test_columns_are_dropped_in_the_stated_order():
    before = 0
    for width in range(80, 200, 4):
        text = render(costly(board()), "text", screen=Screen(width))
        shown = [name for name in KEEP if re.search(rf"  {re.escape(name)}(  |$)", text.splitlines()[2])]
        shown += [RANGE] if "82.0–86.0" in text else []
        there = [name for name in KEEP if name in shown or f", {name}" in text or f"for {name}" in text]
        first = next((place for place, name in enumerate(there) if name not in shown), len(there))
        assert first >= max(before, 1), width
        before = first
    assert first == len(there)


def test_a_result_of_five_rows_has_few_lines_of_text():
    wrong = {"dense": 5, "uniform": 20, "prune80": 6, "logquant3": 7, "heads50:l1": 9}
    text = render([record(m, acc=right(40, w)) for m, w in wrong.items()], "text",
                  screen=Screen(80, legend=False, whole=False))  # fmt: skip
    below = text.partition("heads50:l1  ")[2].splitlines()[1:]
    assert len([line for line in below if line]) <= 8
    assert "prune80: ? about" in text
    assert "undecided on" not in text  # what stands in the row is not said again
    assert "dtype float32" in below[-1] and "--legend" in below[-1] and "kept: (score" not in text


def test_a_method_in_several_rows_is_one_line():
    text = render(several(), "text", screen=Screen(160, legend=False, whole=False))
    (line,) = [line for line in text.splitlines() if line.startswith("logquant3: ")]
    assert line == "logquant3: ≈ 6 of 7; ? 1 of 7 (tiny sst2 acc)"
    (line,) = [line for line in text.splitlines() if line.startswith("prune80: ")]
    assert re.fullmatch(r"prune80: (≈ \d of 6; )?▼ \d of 6 \(.*\).*", line), line


def test_a_command_can_be_pasted_from_the_screen(tmp_path):
    items = board()
    words = ["attnbench", "run", "--models", "./a folder/of models", "--methods", "prune80,heads{10,30}:l1",
             "--tasks", "it's.csv", "--limit", "100", "--records", "records of 'mine'"]  # fmt: skip
    for width in (80, 120):
        text = render(items, "text", screen=Screen(width, made_by=shlex.join(words)))
        command = text.partition("Made by:\n")[2].partition("\nSettings")[0]
        script = tmp_path / "told.sh"
        script.write_text('attnbench() { printf "%s\\n" "$@"; }\n' + command, encoding="utf-8")
        done = subprocess.run(["sh", str(script)], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == words[1:]


def test_a_legend_explains_the_columns_that_are_shown_and_the_names_of_metrics():
    items = several()
    for item in items[:12]:
        item.measured |= {"cache": 0.5, "kv": 0.5}
    wide = " ".join(render(items, "text").split())
    assert "sparsity: the share of zeros among the attention probabilities that a query may see." in wide
    assert "acc is accuracy, em is exact match." in wide and "f1 is" not in wide
    narrow = " ".join(render(items, "text", screen=Screen(80)).split())
    hidden = narrow.partition("No room at 80 columns for ")[2].partition(": a wider")[0].split(", ")
    assert hidden and not [name for name in hidden if f" {name}: the " in narrow]


def test_a_task_of_several_metrics_is_one_clause():
    (line,) = [line for line in render(several()).splitlines() if "Resolution" in line]
    assert line.count("samples of squad resolve") == 1 and re.search(
        r"points of em and ±[\d.]+ points of f1", line
    )


def test_one_sample_is_counted_as_one():
    text = render([record("dense", acc=[1]), record("prune80", acc=[0])])
    assert "1 sample of sst2 resolves ±79 points of acc." in text and "1 samples" not in text


ANCHOR = re.compile(r'<a id="([^"]+)"></a> *$')


def cells(line):
    return [ANCHOR.sub("", cell).strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def markdown_table(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(cells(lines[0]), cells(line), strict=True)) for line in lines[2:]]


def test_markdown_has_heading_table_verdict_and_footnotes():
    text = render(board())
    assert text.startswith("## Models\n\n| model")
    table = {line["method"]: line for line in markdown_table(text)}
    assert table["dense"]["model"] == "tiny" and table["dense"]["task"] == "sst2 (1,000)"
    assert table["uniform"]["model"] == table["uniform"]["task"] == ""
    assert table["prune95"]["acc %"] == "88.0 ± 1.0"
    assert table["prune95"]["Δ dense [95 %]"] == "−4.0 [−5.4, −3.0]"
    assert table["prune95"]["kept"] == "90%" and table["prune95"]["sparsity"] == "94.6%"
    assert table["logquant3"]["bits"] == "3" and "seconds" not in table["logquant3"]
    assert table["heads50:l1"]["Δ dense [95 %]"] == "failed: see notes"
    assert table["window64:on=cross"]["Δ dense [95 %]"] == "n/a: no cross attention"
    assert "prune80:random (3 seeds)" in table and "prune0 (no effect)" in table
    assert "- prune95: worse on sst2 (−4.0 [−5.4, −3.0])." in text
    assert "- prune0: within 1 point of dense on sst2; changed nothing on sst2." in text
    assert "1,000 samples of sst2 resolve ±" in text
    assert "Versions: attnbench 0.1.0, torch 2.13.0." in text
    assert "tiny sst2 heads50:l1: failed: every head has the same l1 norm" in text


@pytest.mark.parametrize(
    "error, shown",
    [
        ("prune80: ValueError: all heads score 0.1", "failed: all heads score 0.1"),
        ("prune80: RuntimeError: ran at 1 of 2 sites", "failed: ran at 1 of 2 sites"),
        ("prune80: ValueError: ", "failed: ValueError: "),
        ("prune80: KeyError: 'layer one'", "failed: KeyError: 'layer one'"),
        ("prune80: ArithmeticError: acc is nan", "failed: ArithmeticError: acc is nan"),
    ],
)
def test_a_class_stands_before_a_reason_only_where_it_says_something(error, shown):
    (row,) = against_dense.rows([missing("prune80", "failed", error)])
    assert footnotes.reason(row) == shown and row.error == error


def test_pocket_models_have_a_table_of_their_own():
    pocket = [record(m, model="pocket-bert", acc=right(100, w)) for m, w in (("dense", 5), ("uniform", 40))]
    text = render([*pocket, *board()])
    published, apart = text.split("## Pocket models (generated text: a smoke test, not evidence)")
    assert "pocket-bert" not in published and "tiny" not in apart
    assert "## Models" not in render(pocket)


def test_a_row_has_an_anchor_that_is_the_path_of_its_record():
    lines = [line for line in render(several()).splitlines() if line.startswith("|")][2:]
    found = [ANCHOR.search(line.rstrip("| ")) for line in lines]
    named = [name[1] for name in found if name]
    rows = [row for row in against_dense.rows(several()) if row.primary]
    assert len(named) == len(set(named)) == len(rows)  # a further metric has the row of the first
    for anchor, row in zip(named, rows, strict=True):
        cell = {"model": row.model, "task": row.task, "method": row.method}
        assert unquote(anchor) == str(path_of("", cell).with_suffix("")).replace("\\", "/")
    assert "tiny/sst2/window64,on=cross" in named


HOSTILE = ["a|b", "x\ny\r\nz", "<script>alert(1)</script>", "[a](javascript:b)", "`|`", "\\|", "../../etc",
           "é\u202e\x00x", "n" * 10_000]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_leave_the_markdown_whole(name):
    items = [
        record(m, model=name, task=name, **{name.replace("|", "¦"): right(100, 9)}) for m in ("dense", name)
    ]
    items += [missing("prune80", "failed", f"{name}: {name}", model=name, task=name)]
    text = render(items)
    table = markdown_table(text)
    assert len(table) == 3
    assert "<script" not in text and max(map(len, text.splitlines())) < 6000
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    html = markdown.render(text)
    assert html.count("<tr>") == 4 and html.count("<table>") == 1
    assert not re.search(r"<(script|a (?!id=)|code)", html)
    assert len(render(items, format="text").splitlines()) < 40


def test_many_verdicts_are_counted_and_folded():
    items = [record("dense", acc=right(1000, 80)), missing("heads50:l1", "failed", "x")]
    items += [record(f"prune{amount}", acc=right(1000, 80 + 5 * amount)) for amount in range(1, 21)]
    text = render(items)
    html = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table").render(text)
    assert html.count("<details>") == html.count("</details>") == 1 and html.count("<li>") == 22
    assert html.index("<details>") < html.index("<li>") < html.index("</details>")
    told = re.search(r"Of 21 comparisons with dense: (.*)\.\n", text)
    assert told and sum(map(int, re.findall(r"\d+", told.group(1)))) == 21 and "1 failed" in told.group(1)
    assert "<details>" not in render(items, format="text") and "<details>" not in render(board())


def test_perplexity_reads_in_percent():
    rng = np.random.default_rng(0)
    base = np.stack([-rng.gamma(9, 2, 500), np.full(500, 6.0)], 1)
    factors = {"dense": 1, "uniform": 1.5, "prune80": 1.001, "prune95": 1.02}
    items = [record(m, task="text", kind="perplexity", perplexity=base * [f, 1]) for m, f in factors.items()]
    text = render(items, format="text")
    assert re.search(r"prune95 .*\+6\.0\d \[\+\d\.\d+, \+\d\.\d+\] %  ▼", text)
    assert "prune80: within 1 % of dense on text." in text
    assert "of the log perplexity" in text


def test_uniform_as_good_as_dense_is_said():
    few, many = (
        render([record(m, acc=right(n, n // 2)) for m in ("dense", "uniform", "prune80")]) for n in (50, 3000)
    )
    assert "the uniform-attention baseline is not worse by 1 point or more" in many
    assert "it is undecided whether the uniform-attention baseline is worse than dense" in few


def test_no_dense_cell_is_said():
    text = render([record("prune80", acc=right(100, 5))])
    assert "tiny sst2: dense was not measured, so nothing is compared with it." in text
    assert "- prune80: not compared on sst2." in text


def test_only_missing_cells_still_make_a_table():
    text = render([missing("dense", "not applicable", "no head for the task")], format="text")
    assert "n/a: no head for the task" in text


def test_a_reason_that_rows_below_each_other_share_is_told_once():
    reasons = ("no head", "no head", "other")
    items = [missing(f"prune{10 * k}", "not applicable", reason) for k, reason in enumerate(reasons, 1)]
    told = re.findall(r"prune\d0 +(.*)", render(items, format="text").split("\n\n")[1])
    assert told == ["n/a: no head", "n/a: as above", "n/a: other"]


def test_models_measured_on_two_definitions_of_a_task_are_said():
    items = [record("dense", model=model, acc=right(100, 9)) for model in "ab"]
    for item, digest in zip(items, "xy", strict=True):
        item.provenance = {"fingerprints": {"task": digest}}
    assert "compare within a model" in render(items)


def test_several_models_are_named_in_the_verdict():
    mistakes = {("a", "dense"): 80, ("a", "prune80"): 81, ("b", "dense"): 80, ("b", "prune80"): 200}
    items = [record(m, model=model, acc=right(1000, wrong)) for (model, m), wrong in mistakes.items()]
    text = render(items)
    assert "- prune80: within 1 point of dense on a sst2; worse on b sst2 (−12.0 [" in text


def test_nothing_to_render():
    assert render([]) == "No records."
    with pytest.raises(UserError, match="md or text"):
        render(board(), format="html")


def test_the_same_records_give_the_same_text():
    assert render(board()) == render(board())


def test_json_holds_the_record_and_its_comparison():
    items = board()
    items[0].fitted = {"scores": np.arange(3), "nan": float("nan")}
    plain = json.loads(json.dumps(to_json(items), allow_nan=False))
    assert len(plain) == len(items)
    by_method = {item["cell"]["method"]: item for item in plain}
    assert by_method["prune95"]["comparison"]["acc"]["mark"] == "▼"
    assert by_method["prune80:random:seed=2"]["comparison"]["acc"]["seeds"] == 3
    assert by_method["heads50:l1"]["comparison"] == {} and by_method["heads50:l1"]["status"] == "failed"
    assert by_method["dense"]["fitted"] == {"scores": [0, 1, 2], "nan": None}
    assert "scores" not in by_method["dense"] and by_method["dense"]["metrics"]["acc"]["value"] == 0.92
