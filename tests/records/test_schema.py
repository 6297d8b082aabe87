"""What a record may hold: a wrong value is named with its file and field, and no table breaks over it."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sample_records import identify, record, right

from attnbench.boards import checks, publish
from attnbench.cli.main import main
from attnbench.errors import UserError
from attnbench.records import record as records
from attnbench.records import schema
from attnbench.statistics import against_dense
from attnbench.statistics.aggregates import METRICS


def made(method="prune80", wrong=9):
    """Make a record in which every field that the table names has a value."""
    item = record(method, acc=right(40, wrong))
    dense = method == "dense"
    item.receipt = {
        "sites_expected": 0 if dense else 2, "sites_hit": 0 if dense else 2,
        "changed": 0.0 if dense else 0.5, "effect": "no effect" if dense else "applied",
        "cut": 1.0, "notes": {"short": 3},
    }  # fmt: skip
    item.measured = {
        "sparsity": 0.8, "nominal": 0.8, "bits": 3.0, "entropy": 2.5, "heads": 1.0, "divergence": 0.2,
        "samples": 16, "flops": {"dense": 1e9, "simulated": 0.9, "realised": None},
        "latency": {"ratio": 0.9, "low": 0.8, "high": 1.0, "seconds": 0.1, "rounds": 7, "samples": 32,
                    "tokens": 24, "threads": 1, "why": "noise"},
        "memory": {"dense": 1000, "ratio": 0.9},
        "first": {"ratio": 1.1, "low": 1.0, "high": 1.2, "seconds": 0.1, "rounds": 7, "samples": 1,
                  "tokens": 40, "threads": 1, "why": "noise"},
        "held": {"dense": 1000, "ratio": 0.5},
        "costs": {
            "date": "2026-11-21T10:00:00+00:00", "seconds": {"fit": 1.0, "measure": 2.0},
            "environment": {"versions": {"torch": "2.13.0"}, "processor": "Xeon", "cores": 2},
        },
        "fidelity": {"flips": {"value": 0.1, "low": 0.05, "high": 0.2}},
        "floor": {
            "batch_size": 7, "threads": 2, "samples": 40, "metrics": {"acc": {"value": 0.8, "moved": 1}},
        },
    }  # fmt: skip
    item.scores["fidelity flips"] = np.arange(40) % 10 == 0
    item.fitted = {"heads50:l1": {"scores_": {"encoder 0": [0.1, 0.2]}, "alive_": {"encoder 0": [1, 0]}}}
    item.settings |= {"calibration": None, "seed": 0, "device": "cpu", "measure": True, "notes": ["x"],
                      "trust_remote_code": False, "batch_tokens": None}  # fmt: skip
    item.provenance = {
        "model": "tiny", "source": "folder", "weights": "bin", "plugins": ["x"], "trust_remote_code": False,
        "command": "attnbench run", "fingerprints": {"dataset": "1", "task": "2", "calibration": None},
        "places": {"checkpoint": "3", "task": "4"}, "check": "shipped",
    }  # fmt: skip
    identify(item)
    return item


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Return a folder with a dense cell and a method, and the method's JSON."""
    folder = tmp_path_factory.mktemp("records")
    records.write(folder, made("dense", 4))
    path = records.write(folder, made())
    assert records.read(path).body() == json.loads(path.read_text(encoding="utf-8"))
    return folder, path, json.loads(path.read_text(encoding="utf-8"))


def put(body, field, value):
    body = copy.deepcopy(body)
    *above, last = re.split(r" (?!0)", field)
    table = body
    for key in above:
        table = table[key]
    table[last] = value
    return body


WRONG = {
    "cell": [5, {"model": "m", "task": "t"}],
    "cell method": [5, "", None, "\ud800"],
    "status": ["done", None, []],
    "error": [["x"], 3],
    "metrics": [[], None, {"acc": 5}, {"acc": {}}],
    "metrics acc value": ["1", None, True, 10**400],
    "metrics acc stderr": ["x", -0.1, [0.1]],
    "metrics acc higher_is_better": ["yes", None, 1],
    "metrics acc aggregate": ["median", None, ["mean"]],
    "receipt": [[], "applied"],
    "receipt changed": [1.5, -0.1, "all"],
    "receipt sites_hit": [-1, 1.5, True],
    "receipt effect": ["some"],
    "measured": [[], "x"],
    "measured sparsity": [7.5, -0.1, "80%"],
    "measured bits": ["<b>x</b>", -1, [3]],
    "measured divergence": [-3, "x"],
    "measured latency": [0.9],
    "measured latency ratio": ["<b>", -1],
    "measured flops simulated": [1.5],
    "fitted": [[], 3],
    "settings": [[], None],
    "settings limit": [0, 1.5, "100"],
    "settings notes": ["x", [1]],
    "settings dtype": ["float8", 3],
    "environment": [[]],
    "environment versions": [[], {"torch": 2}],
    "provenance": [[], None],
    "provenance fingerprints": [[], {"task": 3}],
    "provenance places": [[], {"checkpoint": 3}],
    "provenance arrays": [None, 3],
    "seconds": [[], {"fit": "x"}, {"evaluate": -5}],
    "date": [20261120, None],
}


@pytest.mark.parametrize(
    ("field", "value"), [(key, each) for key, values in WRONG.items() for each in values]
)
def test_a_wrong_value_is_named_and_passed_over(good, tmp_path, capsys, field, value):
    folder, path, body = good
    for file in folder.glob("*/*/*"):
        place = tmp_path / file.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
    wrong = tmp_path / path.relative_to(folder)
    wrong.write_text(json.dumps(put(body, field, value)), encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        records.read(wrong)
    said = str(caught.value)
    assert said.startswith(f"{wrong}: {field}") and "\n" not in said and len(said) < len(str(wrong)) + 150
    assert list(checks.problems(tmp_path)) == [said.replace(str(wrong), "tiny/sst2/prune80.json")]
    assert main(["leaderboard", "--records", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "dense" in out and "prune80" not in out and err == f"attnbench: record passed over: {said}\n"


def fields(table, path=()):
    for key, kind in table.items():
        name = {
            "metrics": "acc", "fidelity": "flips", "fitted": "heads50:l1", "versions": "torch",
            "fingerprints": "task", "places": "task", "seconds": "fit", "notes": "short",
        }[path[-1]] if key == schema.EACH else key  # fmt: skip
        yield (*path, name)
        if isinstance(kind, dict):
            yield from fields(kind, (*path, name))


FIELDS = [" ".join(path) for path in fields(schema.TABLE)]
FIELDS += [f"fitted heads50:l1 {name} encoder 0" for name in ("scores_", "alive_")] + [
    "measured new",
    "settings new",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(FIELDS), value=JSON)
@example(field="seconds", value={"a\nb": None})
def test_whatever_a_field_holds_no_table_and_no_check_breaks(good, field, value):
    folder, path, body = good
    text = json.dumps(put(body, field, value))
    before = path.read_text(encoding="utf-8")
    try:
        path.write_text(text, encoding="utf-8")
        with contextlib.suppress(UserError):  # of records that contradict each other
            found = publish.load(None, folder)
            for format in ("md", "text", "csv", "latex", "html"):
                publish.text(found, format).encode()
        for line in checks.problems(folder):
            assert "\n" not in line and line.encode()
    finally:
        path.write_text(before, encoding="utf-8")


ARRAYS = {
    "doc_id is no list of whole numbers": {"doc_id": np.zeros(40)},
    "acc is no list of numbers": {"acc": np.array(["x"] * 40)},
    "acc is no list of": {"acc": np.array(1.0)},
    "acc is of shape (40, 2), which is not what 'mean' is computed from": {"acc": np.zeros((40, 2))},
    "acc has 39 scores for 40 samples": {"acc": np.zeros(39)},
}


@pytest.mark.parametrize("words", ARRAYS)
def test_arrays_that_are_no_scores_are_named(tmp_path, words):
    item = made()
    item.scores |= ARRAYS[words]
    path = records.write(tmp_path, item)
    with pytest.raises(ValueError) as caught:
        records.read(path)
    assert words in str(caught.value) and str(caught.value).startswith(str(path.with_suffix(".npz")))


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY\x01\x00", None])
def test_arrays_that_are_no_archive_are_named_though_their_hash_is_right(good, tmp_path, content):
    if content is None:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(3))
        content = buffer.getvalue()
    body = put(good[2], "provenance arrays", hashlib.sha256(content).hexdigest())
    path = tmp_path / "prune80.json"
    path.write_text(json.dumps(body), encoding="utf-8")
    path.with_suffix(".npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"prune80\.npz: "):
        records.read(path)


def test_every_aggregate_has_its_columns():
    assert set(schema.COLUMNS) == set(METRICS)


def test_two_records_of_a_cell_are_named_by_their_files(good, tmp_path, capsys):
    other = records.write(tmp_path, made(wrong=12))
    for suffix in (".json", ".npz"):
        other.with_suffix(suffix).rename(other.with_name(f"copy{suffix}"))
    path, copied = records.write(tmp_path, made()), other.with_name("copy.json")
    told = f"prune80 disagree, {re.escape(f'{copied} and {path}')}: keep one"
    with pytest.raises(UserError, match=told):
        against_dense.rows([records.read(copied), records.read(path)])
    assert main(["leaderboard", "--records", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert f"record passed over: {copied}: holds tiny · sst2 · prune80, whose file is another" in said.err
    assert "77.5" in said.out and "70.0" not in said.out  # 9 and 12 of 40 are wrong


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(FIELDS), value=JSON)
def test_what_tests_a_record_and_what_names_its_fault_agree(good, field, value):
    body = put(good[2], field, value)
    assert schema.fits(body) == (schema.first_fault(body) is None)
