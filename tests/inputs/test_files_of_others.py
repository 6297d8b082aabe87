"""Files that break the parsers they are read by: one line, status 2, and no harm to what is beside them."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from attnbench.backends import own_data
from attnbench.backends.encoders.model import label_order
from attnbench.cli.main import main
from attnbench.errors import Misfit, UserError
from attnbench.inputs import files, tasks

GOOD = """task: good
class: !function attnbench.backends.classification.Classify
custom_dataset: !function attnbench.pocket.text.documents
doc_to_choice: [a, b]
metric_list: [{metric: acc}]
"""
BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
)
YAML = {
    "metadata: " + "[" * 5000: "nested too deeply",
    "metadata: {samples: " + "9" * 5000 + "}": "digits",
    "metadata: {date: 2001-99-99}": "month must be in",
    "metadata: !!int ''": "cannot be read",
    "metadata: !!bool maybe": "cannot be read",
    "metadata: !!timestamp x": "cannot be read",
    "metadata: &a [*a]": "nested too deeply",
    BOMB: "aliases stand for too much",
    "? [a]\n: b": "unhashable",
    "metadata: !!python/object/apply:os.system [ls]": "could not determine a constructor",
    "class: attnbench.backends.classification.Classify": "class is a !function",
    "custom_dataset: made_up.documents": "custom_dataset is a !function",
    "metric_list: [{metric: [acc]}]": "metric_list is a list",
    "a: \x00": "cannot be read",
}  # fmt: skip


@pytest.mark.parametrize(("extra", "told"), YAML.items(), ids=range(len(YAML)))
def test_a_broken_yaml_is_one_line_and_harms_no_other(extra, told, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    tasks._leave_out.cache_clear()
    key = extra.partition(":")[0]
    body = "".join(f"{line}\n" for line in GOOD.splitlines() if not line.startswith(f"{key}:"))
    (tmp_path / "broken.yaml").write_text(body.replace("good", "broken") + extra, encoding="utf-8")
    (tmp_path / "good.yaml").write_text(GOOD, encoding="utf-8")
    assert main(["run", "--models", "bert", "--tasks", str(tmp_path / "broken.yaml"), "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and len(err) < 400 and err.strip().isprintable()
    assert main(["tasks", "--include-path", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "\ngood " in out and "\nbroken " not in out and err.count("\n") == 1 and "left out" in err


def test_a_pipe_beside_the_tasks_does_not_stop_the_listing(tmp_path, capsys):
    tasks._leave_out.cache_clear()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "good.yaml").write_text(GOOD, encoding="utf-8")
    assert main(["tasks", "--include-path", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "\ngood " in out and "no regular file" in err


TOML = 'methods = ["prune80"]\nmodels = ["pocket-bert"]\n'


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ("a = " + "[" * 5000, "not TOML"),
        ("seed = " + "9" * 5000, "not TOML"),
        ("seed = " + "9" * 400, "seed = "),
        ("margin = nan", "margin = nan"),
        ("margin = inf", "margin = inf"),
        ("limit = 99999999999999999999", "limit = "),
        ("repeats = 1000000000", "repeats = "),
        ("date = 2001-99-99", "not TOML"),
        ('"a\\n\\u001b[31mb" = 1', "unknown key"),
        ('title = "\\u0000"\nclaims = ["x"]', "claim 'x'"),
    ],
)
def test_a_broken_suite_is_one_line(extra, told, tmp_path, capsys):
    (tmp_path / "s.toml").write_text(TOML + extra, encoding="utf-8")
    assert main(["run", str(tmp_path / "s.toml"), "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and len(err) < 400 and err.strip().isprintable()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.jsonl", "[" * 5000),
        ("d.jsonl", '{"text": "a", "label": ' + "9" * 5000 + "}"),
        ("d.jsonl", '{"text": "a", "label": ' + "[" * 400 + "]" * 400 + "}"),
        ("d.jsonl", '{"text": "a", "label": {"a": "\\u001b[31m"}}'),
        ("d.jsonl", '{"text": ["a\\n"], "label": 1}'),
        ("d.csv", "text,label\na," + "9" * 5000 + "\n"),
        ("d.csv", "text,label\na,x\x1b[31m\n"),
        ("d.csv", 'text,label\n"a,1\n'),
        ("d.csv", "text,label\n" + "a" * 200_000 + ",1\n"),
        ("d.csv", "te\x1bxt,label\na,1\n"),
    ],
)
def test_broken_data_are_one_line(name, content, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        for item in own_data.read(str(tmp_path / name)):
            own_data.number_of(item, ["no", "yes"])
    assert f"{name}, line" in str(caught.value) and len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_a_file_is_read_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)
    (tmp_path / "link").symlink_to(path)
    assert files.content(path) == files.content(tmp_path / "link") == files.content(path, 100) == b"x" * 100
    for wrong, options in (
        (path, (99,)),
        (tmp_path, ()),
        ("/dev/zero", ()),
        (tmp_path / "link", (100, False)),
        ("a\0", ()),
    ):
        with pytest.raises(files.Unreadable):
            files.content(wrong, *options)
    with pytest.raises(FileNotFoundError):
        files.content(tmp_path / "none")


LABELS = [
    (["us", "US", "no"], ["us", "US", "no"], [0, 1, 2]),
    (["us", "US", "no"], ["US", "no", "us"], [1, 2, 0]),
    (["Maße", "Masse"], ["Masse", "Maße"], [1, 0]),
    (["NO", "Yes"], ["yes", "no"], [1, 0]),
    (["a", "a", "b"], ["a", "a", "b"], [0, 1, 2]),
    (["LABEL_0", "LABEL_1"], ["x", "y"], [0, 1]),
    (["a", "a", "b"], ["b", "a", "a"], None),
    (["us", "US", "no"], ["us", "US", "NO"], None),
    (["us", "no"], ["us", "US"], None),
    (["yes", "no"], ["maybe", "no"], None),
]


@pytest.mark.parametrize(("named", "labels", "order"), LABELS)
def test_no_two_labels_share_a_column(named, labels, order):
    config = SimpleNamespace(id2label=dict(enumerate(named)))
    if order is None:
        with pytest.raises(Misfit, match="the labels do not fit"):
            label_order(config, labels)
    else:
        assert label_order(config, labels) == order
        assert sorted(order) == list(range(len(labels)))


@pytest.mark.parametrize(
    ("label", "labels", "number"),
    [
        ("us", ["us", "US"], 0),
        ("US", ["us", "US"], 1),
        (1, ["us", "US"], 1),
        ("1", ["us", "US"], 1),
        ("Us", ["us", "US"], None),
        ("a", ["a", "a"], None),
        (1, ["a", "a"], 1),
        ("MASSE", ["Maße", "Masse"], None),
        ("0001", ["a", "b"], 1),
        ("9" * 5000, ["a", "b"], None),
        ("10000000001", ["a", "b"], None),
    ],
)  # fmt: skip
def test_a_label_is_one_of_the_models_or_refused(label, labels, number):
    item = own_data.Item("mine.csv, line 2", "text", None, label, own_data.EVALUATED)
    if number is None:
        with pytest.raises(UserError, match=r"^mine\.csv, line 2: label"):
            own_data.number_of(item, labels)
    else:
        assert own_data.number_of(item, labels) == number
