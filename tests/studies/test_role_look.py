"""`attnbench look --studies roles`: the rest is measured, a line says what is not; a bad file ends it."""

from __future__ import annotations

import json

import pytest

from attnbench.cli.main import main

LOOK = ["look", "--models", "gpt", "--text", "the old baker admires the quiet singer", "--studies"]


def test_what_is_left_out_is_told_again_from_the_record(tmp_path, capsys):
    asked = [*LOOK, "roles", "--records", str(tmp_path), "--json"]
    for _ in range(2):  # measured, and from the record
        assert main(asked) == 0
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if "roles: left out: " in line]
        assert any("relations: no treebank: give roles:treebank=FILE" in line for line in lines)
        assert any("rare: no text's rarest token is beyond" in line for line in lines)
        (body,) = json.loads(out)
        assert {*body["tables"]} == {"heads", "roles", "left_out"}


@pytest.mark.parametrize(
    "text, said",
    [
        ("1\tI\t_\n", "bank.conllu:1: the line has 3 columns between tabs, not 10. Give a CoNLL-U file"),
        (None, "bank.conllu: No such file or directory. Give a CoNLL-U file."),
    ],
)
def test_a_bad_treebank_is_one_line_and_exit_2(text, said, tmp_path, capsys):
    bank = tmp_path / "bank.conllu"
    if text is not None:
        bank.write_text(text, encoding="utf-8")
    assert main([*LOOK, f"roles:treebank={bank}", "--records", str(tmp_path / "records")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("attnbench: ")]
    assert said in line
