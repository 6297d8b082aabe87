"""Boards: what a suite picks of the records, controls beside their methods, files for other programs."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from sample_records import board as sample
from sample_records import faithful, missing, record, right

from attnbench.boards import board, suite
from attnbench.boards.formats import exports
from attnbench.boards.page import document
from attnbench.boards.tables import leaderboard
from attnbench.errors import UserError
from attnbench.methods import controls
from attnbench.statistics.row import Row


def order(*methods):
    blocks = controls.beside([[Row("m", "t", method)] for method in methods])
    return [(block[0].method, block[0].control_of) for block in blocks]


def test_controls_stand_beside_the_best_method_of_their_budget():
    found = order("dense", "uniform", "heads50:gradient", "prune80", "heads30:random", "mask50",
                  "prune80:random", "heads50:entropy", "heads50:random", "mask50:random")  # fmt: skip
    assert found == [
        ("dense", None), ("uniform", None), ("heads50:gradient", None),
        ("heads50:random", "heads50:gradient"), ("prune80", None), ("prune80:random", "prune80"),
        ("heads30:random", None), ("mask50", None),
        ("mask50:random", "mask50"), ("heads50:entropy", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "control, methods, owner",
    [
        ("prune80:random:layers=0", ("prune80", "prune80:layers=0"), "prune80:layers=0"),
        ("prune80:random:layers=0", ("prune80",), "prune80"),
        ("prune80:random:seed=3", ("prune80:layers=0", "prune80"), "prune80"),
        ("prune80:random+logquant3", ("prune80", "prune80+logquant3"), "prune80+logquant3"),
        ("prune80:random", ("prune50", "threshold0.001"), None),
        ("prune80:random", ("prune80:global", "prune80"), "prune80"),  # the best comes first
        ("mask50:random:seed=1:size=4", ("mask50:block:size=4", "mask50:size=4"), "mask50:size=4"),
        (
            "prune80:global:random+logquant3",
            ("prune80+logquant3", "prune80:global+logquant3"),
            "prune80:global+logquant3",
        ),
    ],
)
def test_a_control_finds_its_method_by_the_spec(control, methods, owner):
    assert dict(order(*methods, control))[control] == owner


def write_suite(folder, **changes):
    lines = {
        "title": '"A board"', "models": '["tiny", "other"]', "tasks": '["sst2"]', "repeats": "3",
        "methods": '["prune95", "logquant3", "prune80:random", "threshold0.1"]',
    }  # fmt: skip
    path = folder / "boards" / "small.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        "\n".join(f"{key} = {value}" for key, value in (lines | changes).items()), encoding="utf-8"
    )
    return path


def test_a_suite_picks_its_cells_and_says_what_is_missing(tmp_path):
    asked = suite.load(write_suite(tmp_path, repeats="4"))
    found = board.build(sample(), asked)
    rows = {row.method: row for row in found.sections[0].rows}
    assert set(rows) == {"dense", "uniform", "prune95", "logquant3", "prune80:random", "threshold0.1"}
    assert rows["threshold0.1"].status == "missing" and rows["prune80:random"].seeds == 3
    assert found.absent == [
        "tiny on sst2, prune80:random: 3 of 4 seeds measured.", "other on sst2: not measured."
    ]  # fmt: skip
    text = leaderboard.write(found)
    assert text.startswith("# A board\n\n## Models\n\n|")
    assert "missing: not measured" in text and "- threshold0.1: missing on sst2." in text
    assert "## Not measured\n\n- tiny on sst2, prune80:random: 3 of 4" in text
    assert "`attnbench leaderboard boards/small.toml --output boards`" in text


def test_nothing_measured_still_makes_a_board(tmp_path):
    found = board.build([], suite.load(write_suite(tmp_path)))
    assert "- tiny on sst2: not measured." in leaderboard.write(found)
    assert exports.to_csv(found).count("\n") == 1


def test_controls_read_as_such_in_markdown():
    items = [*sample(), record("prune80", acc=right(1000, 100))]
    text = leaderboard.render(items)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    place = next(k for k, line in enumerate(lines) if "| prune80 " in line)
    assert "└ prune80:random (3 seeds)" in lines[place + 1]
    assert "└ marks a random baseline: it draws what the method above it chooses, at the same amount." in text


def test_removed_heads_have_a_column():
    items = sample()
    assert "heads |" not in leaderboard.render(items)
    items[2].measured = {"heads": 0.5, "divergence": 0.25}
    lines = [line for line in leaderboard.render(items).splitlines() if line.startswith("|")]
    cells = dict(
        zip(*([cell.strip() for cell in line.split("|")] for line in (lines[0], lines[-2])), strict=True)
    )
    assert "heads" in cells and any("50%" in line and "0.250" in line for line in lines)


def test_what_a_method_does_to_answers_has_columns_in_every_form():
    records = [record("dense", acc=right(200, 20)), record("prune80", acc=right(200, 24))]
    turned = right(200, 196) == 1
    faithful(records[1], flips=turned, answers_changed=turned, kl=np.full(200, 0.0125))
    found = board.build(records)
    dense, line = csv.DictReader(io.StringIO(exports.to_csv(found)))
    assert dense["flips"] == dense["kl"] == ""
    assert float(line["flips"]) == 0.02 == float(line["answers_changed"]) and float(line["kl"]) == 0.0125
    assert float(line["flips_low"]) < 0.02 < float(line["flips_high"])
    wide = leaderboard.write(found, "md")
    assert "2.0% [0.8, 5.0]" in wide and "0.013 [" in wide and "answers changed" in wide
    text = leaderboard.write(found, "text")
    assert "2.0%" in text and "[0.8, 5.0]" not in text and "answers changed" in text
    assert r"2.0\% [0.8, 5.0]" in exports.to_latex(found)
    assert 'data-value="0.02">2.0% [0.8, 5.0]' in document.to_html(found)


def test_csv_holds_every_row_unrounded():
    found = board.build(sample())
    table = {line["method"]: line for line in csv.DictReader(io.StringIO(exports.to_csv(found)))}
    assert len(table) == len(found.sections[0].rows)
    assert table["prune95"]["verdict"] == "worse" and table["prune95"]["mark"] == "▼"
    assert float(table["prune95"]["difference"]) == pytest.approx(-0.04)
    assert table["prune95"]["discordant"] == "40 0" and table["dense"]["difference"] == ""
    assert table["heads50:l1"]["error"].startswith("heads50:l1: ValueError")


HOSTILE = ["a|b", "x\ny\r\nz", "<script>alert(1)</script>", "=cmd()", "\\input{x}", "50%_&#{}~^$", "\\",
           "n" * 10_000, "é\u202e\x00x", '","']  # fmt: skip


def hostile(name):
    items = [record(m, model=name, task=name, **{name: right(100, 9)}) for m in ("dense", name)]
    items += [missing("prune80", "failed", f"{name}: {name}", model=name, task=name)]
    return board.build(items)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_leave_the_csv_whole(name):
    lines = list(csv.reader(io.StringIO(exports.to_csv(hostile(name)))))
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    cells = [cell for line in lines for cell in line]
    assert max(map(len, cells)) <= 200 and not any(cell.startswith("=") for cell in cells)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_leave_the_latex_whole(name):
    text = exports.to_latex(hostile(name))
    body = [line for line in text.splitlines() if not line.startswith("%")]
    known = (r"\\(begin|end)\{(table|longtable|landscape|tabular|minipage)\}"
             r"|\\(centering|caption|toprule|midrule|bottomrule|endhead|endfirsthead|multicolumn|par|smallskip|noindent|linewidth|footnotesize|scriptsize|tiny"
             r"|begingroup|endgroup|setlength|tabcolsep|LTleft|LTright|LTcapwidth"
             r"|quad|pm|Delta|approx|downarrow|uparrow|ldots|text[a-z]+)\b|\\\\|\\[&%$#_{},]")  # fmt: skip
    rest = re.sub(known, "", "\n".join(body))
    assert "\\" not in rest and "%" not in rest and "#" not in rest
    plain = re.sub(r"\\[{}]", "", "\n".join(body))
    assert plain.count("{") == plain.count("}") and re.sub(r"\\\$", "", plain).count("$") % 2 == 0
    heads = [line for line in body if line.startswith("method & ")]
    rows = [line for line in body if line.endswith(r" \\") and not re.match(r"\\(multicolumn|caption)", line)]
    assert len(rows) - len(heads) == 3 and len({re.sub(r"\\&", "", line).count(" & ") for line in rows}) == 1


def test_latex_has_a_rule_and_a_title_for_each_task():
    items = [
        *sample(),
        *(record(m, task="squad", em=right(100, 9), f1=right(100, 5)) for m in ("dense", "prune80")),
    ]
    text = exports.to_latex(board.build(items))
    assert text.count(r"\midrule") == 2 and "prune80, f1 &" in text and "% prune95: worse on" in text
    assert r"{l}{tiny, sst2 (1,000): acc, \%} \\" in text and r"{l}{tiny, squad (100): em, \%} \\" in text
    caption = next(line for line in text.splitlines() if line.startswith(r"\caption"))
    assert caption.startswith(r"\caption{Models. Scores with standard errors; differences to dense")
    assert len(caption) < 220  # two lines of a page
    note = text.partition(r"\begin{minipage}")[2].partition(r"\end{minipage}")[0]
    assert r"$\Delta$ dense: the difference in points" in note and r"$\approx$" in note
    assert "heads50:l1: failed: every head has the same l1 norm" in note and "failed: see notes" in text


def test_every_form_has_the_same_columns():
    items = [record("dense", acc=right(100, 9)), record("prune80", acc=right(100, 10))]
    items[1].measured = {
        "sparsity": 0.8, "bits": 3.0, "heads": 0.5, "divergence": 0.1, "latency": {"ratio": 0.8},
        "memory": {"ratio": 0.9}, "flops": {"simulated": 0.9},
    }  # fmt: skip
    found = board.build(items)
    latex = next(line for line in exports.to_latex(found).splitlines() if line.startswith("method &"))
    tables = {
        "latex": latex.removesuffix(r" \\").split(" & ")[4:],
        "md": [cell.strip() for cell in leaderboard.write(found).split("\n")[2].strip("|").split("|")][6:],
        "html": re.findall(r'<button type="button">([^<]*)</button></th>', document.to_html(found))[6:],
        "text": re.split("  +", leaderboard.write(found, "text").split("\n")[2])[3:],
    }
    told = ["sparsity", "bits", "heads", "sim. FLOPs", "latency", "memory", "divergence"]
    assert all(each[-len(told) :] == told for each in tables.values()), tables


def test_a_wide_latex_table_lies_on_its_side_with_one_number_a_cell():
    items = [record("dense", acc=right(200, 20)), record("uniform", acc=right(200, 90))]
    for seed in (0, 1):
        items.append(faithful(record(f"prune80:random:seed={seed}", acc=right(200, 24 + seed)),
                              flips=right(200, 196) == 1, kl=np.full(200, 0.0125)))  # fmt: skip
        items[-1].measured |= {"sparsity": 0.8, "bits": 3.0, "heads": 0.5, "divergence": 0.1}
    narrow = exports.to_latex(board.build(items))
    assert r"2.0\% [" in narrow and r"\scriptsize" in narrow  # all of it fits on a page's side
    assert "landscape" not in exports.to_latex(board.build(items[:2]))
    long = "+".join(f"heads50:gradient:on=encoder:steps={k}" for k in (1, 2, 3, 4))
    items.append(record(long, acc=right(200, 30)))
    wide = exports.to_latex(board.build(items))
    assert wide.startswith(r"% needs \usepackage{booktabs,longtable,pdflscape}")
    assert wide.count(r"\begin{landscape}") == wide.count(r"\end{landscape}") == 1
    assert wide.count(r"\begingroup") == wide.count(r"\endgroup") == 1
    row = next(line for line in wide.splitlines() if "prune80:random" in line and " & " in line)
    assert r"2.0\% &" in row and "[" not in row.split(" & ")[5] and "--" not in row.split(" & ")[1]
    assert "the other formats have them" in wide and "the other formats have them" not in narrow


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_latex_is_set_without_a_complaint(tmp_path):
    rows = [record(f"prune{k}+logquant3", acc=right(100, 9 + k % 7)) for k in range(1, 45)]
    for number, items in enumerate((sample(), [*sample(), *rows])):
        text = exports.to_latex(board.build(items))
        packages = re.search(r"usepackage{([^}]*)}", text)[1]
        whole = [r"\documentclass{article}", r"\usepackage[T1]{fontenc}", rf"\usepackage{{{packages}}}",
                 r"\begin{document}", text, r"\end{document}"]  # fmt: skip
        (tmp_path / f"b{number}.tex").write_text("\n".join(whole), encoding="utf-8")
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"b{number}.tex"],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0 and "Overfull" not in done.stdout, done.stdout[-2000:]


def test_a_long_latex_table_breaks_over_pages_and_says_what_it_is(tmp_path):
    items = [record("dense", model="pocket-x", acc=right(100, 9))]
    items += [record(f"prune{k}", model="pocket-x", acc=right(100, 9 + k)) for k in range(1, 50)]
    text = exports.to_latex(board.build(items))
    assert r"\begin{longtable}{lrrl" in text and r"\endhead" in text and r"\begin{table}" not in text
    assert "generated text: a smoke test, not evidence" in text
    absent = exports.to_latex(board.build(sample(), suite.load(write_suite(tmp_path, methods=["prune10"]))))
    assert "% Not measured:" in absent and "prune10" in absent


def test_a_board_is_a_function_of_its_records():
    rng = np.random.default_rng(0)
    items = sample()
    texts = {exports.to_csv(board.build([items[k] for k in rng.permutation(len(items))])) for _ in range(3)}
    assert len(texts) == 1


def test_contradicting_records_are_named(tmp_path):
    asked = suite.load(write_suite(tmp_path))
    with pytest.raises(UserError, match="two records for tiny sst2 logquant3 disagree"):
        board.build([*sample(), record("logquant3", acc=right(1000, 90))], asked)
