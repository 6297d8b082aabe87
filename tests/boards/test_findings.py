"""Boards of looks: how rows and claims are written, how claims are decided, and that a board is true."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from attnbench.boards import suite
from attnbench.boards.findings import asked, claims, selection
from attnbench.cli.main import main
from attnbench.errors import UserError
from attnbench.studies import looks

BOARD = """
title = "A look"
about = "Two paragraphs.\\n\\nThe | second."

[[look]]
model = "pocket-bert"
task = "pocket-sentiment"
limit = 6
studies = ["sparsity", "divergence"]
methods = ["prune80"]
claims = [
    "all of sparsity.heads have zeros < 0.5",
    "at least 100% of sparsity.heads where method = prune80 have zeros > 0.5",
    "at least 3 of divergence.heads where method = prune80 and layer = 0 have tv > 2",
]
shows = ["sparsity.heads by layer: zeros, half", "divergence.layers"]
pictures = ["sparsity.zeros", "sparsity.bars", "divergence.tv"]
"""


def tables():
    """Four heads, dense and with a method: scores with intervals, by layer."""
    index = pd.MultiIndex.from_product(
        [["dense", "prune80"], ["encoder"], [0, 1], [0, 1]], names=["method", "kind", "layer", "head"]
    )
    score = np.array([0.1, 0.4, 0.6, 0.9] * 2)
    heads = pd.DataFrame({"score": score, "plain": score}, index=index)
    heads["score_low"], heads["score_high"] = score - 0.15, score + 0.15
    heads.loc[("prune80", "encoder", 1, 1), "plain"] = math.nan
    named = pd.DataFrame(
        {"gain": [0.2, -0.1]},
        index=pd.MultiIndex.from_tuples([("dense", "last layer"), ("dense", "best")], names=["method", "of"]),
    )
    return {"peak": {"heads": heads, "named": named}}


@pytest.mark.parametrize(
    ("claim", "verdict", "found"),
    [
        ("at least 2 of peak.heads have plain > 0.5", "holds", "2 of 4"),
        ("at least 3 of peak.heads have plain > 0.5", "fails", "2 of 4"),
        ("at least 50% of peak.heads have plain > 0.5", "holds", "2 of 4 (50%)"),
        ("at least 51% of peak.heads have plain > 0.5", "fails", "2 of 4 (50%)"),
        ("all of peak.heads have plain > 0.05", "holds", "4 of 4"),
        ("all of peak.heads where method = prune80 have plain > 0.05", "fails", "3 of 4"),  # one has none
        ("at least 1 of peak.heads where layer = 1 and head != 0 have plain >= 0.9", "holds", "plain 0.900"),
        # by the interval: .9 is surely above .5, .6 and .4 may be, .1 is surely not
        ("at least 1 of peak.heads have score > 0.5", "holds", "2 of 4"),
        ("at least 2 of peak.heads have score > 0.5", "open", "2 of 4"),
        ("at least 4 of peak.heads have score > 0.5", "fails", "2 of 4"),
        ("at least 1 of peak.heads have score > 0.5 and plain < 0.5", "open", "0 of 4"),
        ("all of peak.heads where layer = 1 and head = 1 have score > 0.5", "holds", "score 0.900 [0.750, 1.050]"),  # noqa: E501
        ("all of peak.named where of = 'last layer' have gain > 0", "holds", "gain 0.200"),
        ("all of peak.named where of = best have gain > 0", "fails", "gain -0.100"),
        ("all of peak.named have gain > 0", "fails", "1 of 2: gain 0.200; gain -0.100"),
        ("all of peak.named where of = middle have gain > 0", "open", "no such row"),
    ],
)  # fmt: skip
def test_claims_are_decided_by_counting_rows_and_by_intervals(claim, verdict, found):
    outcome = claims.decide(claims.parse(claim), tables())
    assert (outcome.verdict, outcome.found) == (verdict, found)


def test_a_claim_of_what_was_not_measured_is_open():
    outcome = claims.decide(claims.parse("all of peak.heads have plain > 0"), tables(), ["peak"])
    assert (outcome.verdict, outcome.found) == ("open", "not measured")


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ("most of peak.heads have plain > 0", "of how many"),
        ("at least 2.5 of peak.heads have plain > 0", "not a whole number"),
        ("all of peak have plain > 0", "STUDY.TABLE"),
        ("all of peak.heads", "nothing that they have"),
        ("all of peak.heads have plain", "NAME < "),
        ("all of peak.heads have plain > 0 and", "NAME < "),
        ("all of peak.heads have plain > 0 or gain > 0", "NAME < "),
        ("all of peak.heads where have plain > 0", "NAME < "),
        ("all of peak.heads where of = 'last have plain > 0", "cannot be read from"),
    ],
)
def test_a_claim_that_cannot_be_read_says_what_one_looks_like(claim, said):
    with pytest.raises(UserError, match=said) as error:
        claims.parse(claim)
    assert "at least 25% of" in str(error.value)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("peek.heads", "unknown study 'peek'. Did you mean peak"),
        ("peak.head", "unknown table 'head'. Did you mean heads"),
        ("peak.heads where layers = 1", "unknown column 'layers'. Did you mean layer"),
        ("peak.named where of > best", "texts are = or !="),
    ],
)
def test_a_name_that_a_table_has_not_is_named(rows, said):
    with pytest.raises(UserError) as error:
        selection.rows(selection.words(rows)).of(tables())
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('title = "A look"', "titel = 1", "unknown key 'titel'"),
        ('title = "A look"', "title = 1", "title is a text"),
        ("limit = 6", "limit = 0", "limit = 0 is not"),
        ("limit = 6", "limits = 6", "unknown key 'limits'"),
        ('studies = ["sparsity", "divergence"]', "", "names studies"),
        ('["sparsity", "divergence"]', '["sparsty"]', "sparsity"),
        ('model = "pocket-bert"', 'model = "bert"', "short name"),
        ('model = "pocket-bert"', "", "a look has a model"),
        ("of sparsity.heads have zeros", "of spars.heads have zeros", "unknown study 'spars'"),
        ('["sparsity.zeros"', '["zeros"', "unknown study 'zeros'"),
        ("by layer: zeros", "by : zeros", "by NAME"),
        ("[[look]]", "[look]", "each look is a table"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_names_it(tmp_path, capsys, old, new, said):
    path = tmp_path / "wrong.toml"
    assert old in BOARD
    path.write_text(BOARD.replace(old, new, 1), encoding="utf-8")
    assert main(["leaderboard", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and "wrong.toml" in line


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A board that has been looked at and rendered."""
    folder = tmp_path_factory.mktemp("boards")
    path = folder / "inside.toml"
    path.write_text(BOARD, encoding="utf-8")
    assert main(["look", str(path)]) == 0
    assert main(["leaderboard", str(path), "--output", str(folder)]) == 0
    return path


def test_a_board_has_its_claims_commands_tables_and_pictures(measured, capsys):
    text = measured.with_suffix(".md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if "#1" in line and line.startswith("|")]
    assert [row[-1].strip(" |") for row in rows] == ["holds", "holds", "fails"]
    assert rows[1][2].strip() == "16 of 16 (100%)" and "1 hold, " not in text and "2 hold, 1 fail" in text
    command = (
        "attnbench look --models pocket-bert --tasks pocket-sentiment --limit 6 "
        "--studies sparsity,divergence --methods prune80 --output look"
    )
    assert command in text and "CPU seconds" in text
    # a row a method and layer, of the columns that were asked for
    assert [line for line in text.splitlines() if line.startswith("| method") and "zeros" in line]
    assert text.count("![") == 5
    assert "sparsity zeros, prune80 − dense](" in text and "divergence tv, prune80](" in text
    for name in ("zeros.dense", "zeros.prune80", "bars.dense", "bars.prune80"):
        for form in ("svg", "png"):
            assert (measured.with_suffix("") / f"1-pocket-bert.sparsity.{name}.{form}").is_file()
    assert main(["leaderboard", str(measured), "--check"]) == 0
    assert main(["leaderboard", str(measured)]) == 0
    assert capsys.readouterr().out == f"nothing wrong\n{text}"


def test_the_tables_are_those_of_the_records(measured):
    kept = looks.read(
        looks.path_of(
            asked.load(measured).records,
            {"model": "pocket-bert", "task": "pocket-sentiment", "method": "prune80", "study": "sparsity"},
        )
    )
    means = kept.tables["heads"]["zeros"].groupby("layer").mean()
    text = measured.with_suffix(".md").read_text(encoding="utf-8")
    (start,) = [k for k, line in enumerate(text.splitlines()) if "by layer: zeros, half`" in line]
    lines = [line.split("|") for line in text.splitlines()[start + 4 : start + 12]]
    found = {(row[1].strip(), int(row[2])): row[3].strip() for row in lines}
    assert {layer: found["prune80", layer] for layer in range(4)} == {
        layer: claims.number(float(mean)) for layer, mean in means.items()
    }


def test_what_is_recorded_is_not_looked_at_again(measured, monkeypatch, capsys):
    monkeypatch.setattr("attnbench.studies.looking.conduct", lambda *_, **__: pytest.fail("looked again"))
    assert main(["look", str(measured), "--models", "bert"]) == 0
    assert capsys.readouterr().out.startswith("pocket-bert · pocket-sentiment: dense, prune80")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--studies", "maps1"], "--studies: a file of looks has its own; change"),
        (["--output", "there"], "attnbench leaderboard"),
        (["--models", "gpt"], "no look is of it; the file has pocket-bert"),
    ],
)
def test_what_a_file_says_itself_is_no_option(measured, capsys, options, said):
    assert main(["look", str(measured), *options]) == 2
    assert said in capsys.readouterr().err


def test_each_kind_of_file_names_the_command_that_is_for_it(measured, tmp_path, capsys):
    for command in ("run", "status"):
        assert main([command, str(measured)]) == 2
        assert f"attnbench look {measured}" in capsys.readouterr().err
    other = tmp_path / "suite.toml"
    other.write_text('methods = ["prune80"]\nmodels = ["pocket-bert"]\n', encoding="utf-8")
    assert suite.load(other) and main(["look", str(other)]) == 2
    assert f"attnbench run {other}" in capsys.readouterr().err
    assert main(["leaderboard", str(measured), "--format", "html"]) == 2
    assert "a board of looks is md" in capsys.readouterr().err


def changed_claim(path):
    text = path.read_text(encoding="utf-8").replace("zeros < 0.5", "zeros < 0.6")
    path.write_text(text, encoding="utf-8")


def changed_limit(path):
    path.write_text(path.read_text(encoding="utf-8").replace("limit = 6", "limit = 7"), encoding="utf-8")


def record_of(path, method="dense"):
    folder = asked.load(path).records / looks.FOLDER
    return folder / "pocket-bert" / "pocket-sentiment" / method / "sparsity.json"


def changed_number(path):
    file = record_of(path)
    body = json.loads(file.read_text(encoding="utf-8"))
    body["tables"]["heads"]["rows"][0][3:] = [0.77] * len(body["tables"]["heads"]["rows"][0][3:])
    file.write_text(json.dumps(body), encoding="utf-8")


def changed_identity(path):
    file = record_of(path)
    body = json.loads(file.read_text(encoding="utf-8"))
    body["provenance"]["fingerprints"]["checkpoint"] = "0" * 64
    file.write_text(json.dumps(body), encoding="utf-8")


def gone_record(path):
    record_of(path, "prune80").unlink()


def strange_record(path):
    file = record_of(path)
    (file.parent / "other.json").write_bytes(file.read_bytes())


def strange_picture(path):
    (path.with_suffix("") / "other.svg").write_text("<svg/>", encoding="utf-8")


def older_picture(path):
    file = path.with_suffix("") / "1-pocket-bert.sparsity.zeros.dense.svg"
    file.write_text("<svg/>", encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (changed_claim, "inside.md: stale"),
        (changed_limit, "looked at with limit 6, the board says 7"),
        (changed_number, "inside.md: stale"),
        (changed_identity, "its identity is of other settings"),
        (gone_record, "arrays without a record"),
        (strange_record, "is of no look of inside.toml"),
        (strange_picture, "other.svg: stale"),
        (older_picture, "zeros.dense.svg: stale"),
    ],
)
def test_a_board_that_is_no_longer_true_is_told(measured, tmp_path, capsys, spoil, said):
    import shutil

    shutil.copytree(measured.parent, tmp_path / "boards")
    path = tmp_path / "boards" / measured.name
    spoil(path)
    assert main(["leaderboard", str(path), "--check"]) == 1
    assert said in capsys.readouterr().out
