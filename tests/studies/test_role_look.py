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
        lines = [line for line in err.splitlines() if "roles leaves out " in line]
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


BANK = """1\tthe\t_\tDET\t_\t_\t2\tdet\t_\t_
2\tbaker\t_\tNOUN\t_\t_\t3\tnsubj\t_\t_
3\tadmires\t_\tVERB\t_\t_\t0\troot\t_\t_
4\tsingers\t_\tNOUN\t_\t_\t3\tobj\t_\t_
"""


def test_a_treebank_that_changed_under_its_name_is_read_again_and_that_is_told(tmp_path, capsys):
    dev, test = tmp_path / "dev.conllu", tmp_path / "test.conllu"
    dev.write_text(BANK, encoding="utf-8")
    test.write_text(f"{BANK}\n{BANK}", encoding="utf-8")
    records = tmp_path / "records"
    asked = [*LOOK, "roles", "--treebank", f"{dev},{test}", "--records", str(records)]
    again = []
    for _ in range(2):
        assert main(asked) == 0
        again.append([line for line in capsys.readouterr().err.splitlines() if "again" in line])
    (record,) = records.rglob("*.json")
    before = record.read_bytes()
    test.write_text(BANK, encoding="utf-8")
    assert main(asked) == 0
    again.append([line for line in capsys.readouterr().err.splitlines() if "again" in line])
    assert again[:2] == [[], []] and record.read_bytes() != before
    (line,) = again[2]
    assert line.endswith(f"looked at again: {test} has changed")


MISTAKES = {
    "--studies sparsity --treebank FILE": "--treebank: no study named reads one. Name roles in --studies.",
    "--studies roles:treebank=FILE --treebank FILE": "names a treebank, and so does --treebank.",
    "--treebank FILE FILE.2 FILE.3": "--treebank: 3 files; give one, or two: DEV,TEST",
    "--treebank nowhere.conllu": "--treebank nowhere.conllu: no such file.",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_with_a_treebank_is_one_line(line, tmp_path, capsys):
    bank = tmp_path / "bank.conllu"
    bank.write_text(BANK, encoding="utf-8")
    asked = [*LOOK[:-1], *line.replace("FILE", str(bank)).split(), "--records", str(tmp_path / "records")]
    assert main(asked) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert MISTAKES[line] in told


def test_a_treebank_alone_asks_for_the_studies_that_read_one(tmp_path, capsys):
    bank = tmp_path / "bank.conllu"
    bank.write_text(BANK, encoding="utf-8")
    look = [*LOOK[:-1], "--treebank", str(bank), "--json", "--records", str(tmp_path / "records")]
    assert main(look) == 0
    names = {body["study"] for body in json.loads(capsys.readouterr().out)}
    assert any(name.startswith("roles:treebank=") for name in names) and "sparsity" in names
