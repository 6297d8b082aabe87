"""The run: records and receipts, what is not measured again, what survives a kill, whose failure is whose."""

from __future__ import annotations

import os
import shutil
import signal
import traceback
from pathlib import Path

import numpy as np
import pytest

import attnbench
from attnbench.backends.encoders import prepared
from attnbench.boards import checks
from attnbench.cli.main import main
from attnbench.engine.learning import fit
from attnbench.errors import UserError
from attnbench.inputs import hub, models
from attnbench.matrix import answered, console
from attnbench.methods import spec
from attnbench.records import provenance, record
from attnbench.records.record import Record

METHODS = ["prune80", "logquant3"]
CELLS = ["dense", "uniform", *METHODS]


def _run(folder, records, methods=METHODS, **options):
    options = {"limit": 12, **options}
    return attnbench.run(folder, methods, "pocket-sentiment", records=str(records), **options)


def _cells(result):
    return {item.cell["method"]: item for item in result.records}


@pytest.fixture
def evaluations(monkeypatch):
    """Count the evaluations that really happen."""
    calls = []
    original = prepared.Prepared.evaluate

    def counted(self, *arguments, **options):
        calls.append(self)
        return original(self, *arguments, **options)

    monkeypatch.setattr(prepared.Prepared, "evaluate", counted)
    return calls


def test_every_cell_is_measured_and_receipted(tiny_folder, tmp_path):
    cells = _cells(_run(tiny_folder, tmp_path))
    assert list(cells) == CELLS
    for method, item in cells.items():
        assert item.status == "measured" and item.error is None
        assert len(item.scores["acc"]) == 12 and item.metrics["acc"]["value"] == item.scores["acc"].mean()
        assert item.provenance["fingerprints"]["checkpoint"] and item.environment["versions"]["torch"]
        if method != "dense":
            assert item.receipt["sites_hit"] == item.receipt["sites_expected"] == 2
            assert item.receipt["effect"] == "applied" and item.receipt["changed"] > 0.9
    assert cells["dense"].receipt["changed"] == 0
    assert 0.7 < cells["prune80"].measured["sparsity"] < 0.8
    assert cells["uniform"].measured["divergence"] > 0.1
    assert cells["logquant3"].measured["bits"] <= 3


def test_the_same_run_again_measures_nothing(tiny_folder, tmp_path, evaluations):
    first = _run(tiny_folder, tmp_path).table()
    assert len(evaluations) == len(CELLS)
    assert _run(tiny_folder, tmp_path).table() == first
    assert _run(tiny_folder, tmp_path, batch_size=3).table() == first
    assert len(evaluations) == len(CELLS)


@pytest.mark.parametrize(
    "change",
    [
        {"limit": 14}, {"force": True}, {"limit": 10, "replace": True}, {"seed": 1, "replace": True},
        {"dtype": "float64", "replace": True},
    ],
)  # fmt: skip
def test_what_changes_a_number_is_measured_again(change, tiny_folder, tmp_path, evaluations):
    _run(tiny_folder, tmp_path)
    _run(tiny_folder, tmp_path, **change)
    assert len(evaluations) == 2 * len(CELLS)


@pytest.mark.parametrize("name, old, new", [
    ("tokenizer.json", '"great"', '"graet"'), ("chat_template.jinja", "", "{{ messages }}"),
    ("tokenizer_config.json", "{", '{"chat_template": "{{ messages }}", '),
    ("generation_config.json", "", "{}"),
])  # fmt: skip
def test_what_lies_beside_the_weights_is_part_of_the_identity(
    name, old, new, tiny_folder, tmp_path, evaluations
):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    before = _cells(_run(str(folder), tmp_path / "records"))
    file = folder / name
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    after = _cells(_run(str(folder), tmp_path / "records"))
    assert len(evaluations) == 2 * len(CELLS)
    for method, item in after.items():
        assert item.provenance["identity"] != before[method].provenance["identity"]
    assert not list(checks.problems(tmp_path / "records"))


def test_a_file_that_a_method_names_is_known_by_its_content(
    scaled, tiny_folder, tmp_path, evaluations, capsys
):
    file = tmp_path / "factor"
    spec_ = f"scaled:file={file}"

    def measured(content):
        file.write_text(content, encoding="utf-8")
        before = len(evaluations)
        item = _cells(_run(tiny_folder, tmp_path / "r", [spec_]))[spec_]
        return item, len(evaluations) - before

    first, count = measured("0.5")
    assert count == 3 and list(provenance.files(spec.parse(spec_))) == [f"file {file}"]
    assert measured("0.5")[1] == 0
    second, count = measured("0.25")
    assert count == 1 and second.scores["acc"].tolist() != first.scores["acc"].tolist()
    assert not list(checks.problems(tmp_path / "r"))
    file.write_text("0.250", encoding="utf-8")
    path = record.path_of(tmp_path / "r", second.cell)
    assert main(["verify", str(path), "--model", tiny_folder, "--file", str(file)]) == 1
    assert f"file {file}: its content is another" in capsys.readouterr().out
    assert not provenance.files(spec.parse("prune80:layers=0:on=encoder+heads:fixed:off=0.1"))


def test_a_checkpoint_is_known_by_the_weights_that_are_loaded(tiny_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    before = models.find(str(folder), "pocket-sentiment").fingerprint
    (folder / "pytorch_model.bin").write_bytes(b"what another machine has in its cache too")
    assert models.find(str(folder), "pocket-sentiment").fingerprint == before


@pytest.mark.parametrize("seed", [-1, 1 << 31])
def test_a_seed_that_no_generator_takes_is_a_mistake(seed, tmp_path, capsys):
    asked = ["run", "--models", "bert", "--seed", str(seed), "--limit", "4", "--records", str(tmp_path / "r")]
    assert main(asked) == 2
    assert f"seed {seed} is no whole number from 0 to" in capsys.readouterr().err.splitlines()[-1]


def test_only_the_new_method_is_measured(tiny_folder, tmp_path, evaluations):
    _run(tiny_folder, tmp_path, ["prune80"])
    cells = _cells(_run(tiny_folder, tmp_path, ["prune80", "prune50"]))
    assert len(evaluations) == 4
    assert cells["prune50"].receipt["changed"] > 0.9


def test_a_damaged_record_is_measured_again(tiny_folder, tmp_path, evaluations):
    result = _run(tiny_folder, tmp_path)
    path = record.path_of(tmp_path, result.records[2].cell)
    path.write_text("{", encoding="utf-8")
    _run(tiny_folder, tmp_path)
    assert len(evaluations) == len(CELLS) + 1
    assert record.read(path).metrics == result.records[2].metrics


def _killed_at(tiny_folder, folder, call, before):
    """Run in a forked process that kills itself at its n-th rename of a record file."""
    child = os.fork()
    if child == 0:
        replace, calls = os.replace, []

        def kill(*arguments):
            calls.append(arguments)
            if not before:
                replace(*arguments)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            if before:
                replace(*arguments)

        os.replace = kill
        try:
            _run(tiny_folder, folder)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)  # the child must never come back into pytest
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize("before", [True, False], ids=["before the rename", "after the rename"])
@pytest.mark.parametrize("call", range(1, 2 * len(CELLS) + 1))
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_any_write_a_second_run_finishes(call, before, tiny_folder, tmp_path):
    expected = _run(tiny_folder, tmp_path / "whole")
    assert _killed_at(tiny_folder, tmp_path / "cut", call, before) == -signal.SIGKILL
    for file in (tmp_path / "cut").rglob("*.json"):
        record.read(file)  # no half of a record has a record's name
    result = _run(tiny_folder, tmp_path / "cut")
    names = sorted(str(f.relative_to(tmp_path / "cut")) for f in (tmp_path / "cut").rglob("*") if f.is_file())
    assert names == sorted(
        str(f.relative_to(tmp_path / "whole")) for f in (tmp_path / "whole").rglob("*") if f.is_file()
    )
    for mine, theirs in zip(result.records, expected.records, strict=True):
        assert mine.cell == theirs.cell and mine.metrics == theirs.metrics
        np.testing.assert_array_equal(mine.scores["acc"], theirs.scores["acc"])


def test_draws_are_repeated_with_other_seeds(tiny_folder, tmp_path):
    cells = _cells(_run(tiny_folder, tmp_path, ["prune80:random"], repeats=2))
    assert list(cells)[2:] == ["prune80:random", "prune80:random:seed=1"]
    measured = [cells[name].measured["divergence"] for name in list(cells)[2:]]
    assert measured[0] != measured[1]


def test_a_method_that_changes_nothing_is_flagged(tiny_folder, tmp_path):
    item = _cells(_run(tiny_folder, tmp_path, ["prune0"]))["prune0"]
    assert item.status == "measured" and item.receipt["effect"] == "no effect"
    assert item.receipt["sites_hit"] == item.receipt["sites_expected"] == 2


def test_a_method_without_a_site_is_not_applicable(tiny_folder, tmp_path):
    cells = _cells(
        _run(tiny_folder, tmp_path, ["prune80:on=cross", "prune80:layers=5-9+logquant3", "prune80"])
    )
    assert [cells[name].status for name in list(cells)[2:]] == [
        "not applicable",
        "not applicable",
        "measured",
    ]
    assert "on=cross" in cells["prune80:on=cross"].error


def test_a_method_that_acts_nowhere_is_not_applicable(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "require_sites", lambda *_: None)
    specs = ["hidden-quant8:on=cross", "prune80:layers=9+prune50:layers=8", "finetune2:layers=0"]
    cells = _cells(_run(tiny_folder, tmp_path, specs))
    assert [cells[name].status for name in specs] == ["not applicable", "not applicable", "measured"]
    assert "no layer begins at on=cross" in cells[specs[0]].error


def test_a_term_that_stands_there_twice_says_twice_what_it_learned(tiny_folder, tmp_path):
    specs = ["mask50+mask50", "finetune2+mask50+finetune2+finetune2"]
    cells = _cells(_run(tiny_folder, tmp_path, specs))
    assert list(cells[specs[0]].fitted) == ["mask50", "mask50:2"]
    assert list(cells[specs[1]].fitted) == ["finetune2", "mask50", "finetune2:2", "finetune2:3"]
    first, second = (cells[specs[1]].fitted[name]["losses_"] for name in ("finetune2", "finetune2:2"))
    assert first != second


def test_what_is_not_applicable_stays_as_it_is(tmp_path, monkeypatch):
    moments = iter(f"2026-01-0{k}T00:00:00+00:00" for k in range(1, 9))
    monkeypatch.setattr(provenance, "now", lambda: next(moments))

    def run(**options):
        made = attnbench.run("gpt", (), "pocket-sentiment", records=str(tmp_path), limit=4, **options)
        assert {item.status for item in made.records} == {"not applicable"}
        return [(file.name, file.read_bytes()) for file in sorted(tmp_path.rglob("*.json"))]

    first = run()
    assert run() == first
    assert run(force=True) != first
    assert run(seed=1) != first  # the settings are others


@pytest.fixture
def refused(tiny_folder, tmp_path):
    """Return what runs methods on a file, calibrated on another file or on itself, and both files."""
    rows = [
        f"{words},{label}\n"
        for words in ("a fine film", "dull", "good")
        for label in ("negative", "positive")
    ]
    files = []
    for name in ("mine", "other"):
        file = tmp_path / f"{name}.csv"
        file.write_text("text,label\n" + "".join(f"{name} {row}" for row in rows), encoding="utf-8")
        files.append(str(file))
    records = str(tmp_path / "records")

    def run(calibration, **options):
        return _cells(
            attnbench.run(
                tiny_folder,
                ["mask50", "prune80"],
                files[0],
                records=records,
                calibration=calibration,
                **options,
            )
        )

    return run, *files


def test_a_refused_calibration_fails_what_calibrates_alone(refused, tiny_folder, tmp_path, capfd):
    run, mine, _ = refused
    cells = run(mine)
    told = {name: item.status for name, item in cells.items()}
    assert told == {"dense": "measured", "uniform": "measured", "mask50": "failed", "prune80": "measured"}
    assert "6 of 6 calibration samples of task 'mine' are evaluated too" in cells["mask50"].error
    asked = ["run", "--models", tiny_folder, "--tasks", mine, "--methods", "mask50,prune80"]
    assert main([*asked, "--calibration", mine, "--records", str(tmp_path / "r")]) == 1
    assert capfd.readouterr().err.count("are evaluated too") == 1


def test_a_refused_calibration_overwrites_nothing_that_was_measured(refused):
    run, mine, other = refused
    measured = run(other)["mask50"]
    with pytest.raises(UserError, match=r"calibration other\.csv, not mine\.csv"):
        run(mine)
    assert measured.status == "measured" and run(mine, replace=True)["mask50"].status == "failed"
    assert run(other, replace=True)["mask50"].date == measured.date
    run(mine, force=True, replace=True)
    assert run(mine, replace=True)["mask50"].status == "failed"


def test_fitted_methods_learn_once_and_say_what(tiny_folder, tmp_path):
    cells = _cells(
        _run(tiny_folder, tmp_path, ["heads50:gradient", "heads50:entropy", "mask50", "prune50:global"])
    )
    for method in ("heads50:gradient", "heads50:entropy"):
        learned = cells[method].fitted[method]
        assert sum(map(sum, learned["alive_"].values())) == 4
        assert cells[method].measured["heads"] == 0.5
    assert abs(cells["mask50"].fitted["mask50"]["hide_"]["encoder 0"]["density"] - 0.5) < 0.3
    assert all(cells[method].seconds["fit"] > 0 for method in list(cells)[2:])


FAULTY = """
from dataclasses import dataclass
from attnbench import Method, hookimpl

@dataclass
class Raises(Method):
    name = "raises"
    examples = ("raises",)
    def probs(self, probs, site):
        raise ArithmeticError("no such luck")

@dataclass
class Nan(Method):
    name = "nan"
    examples = ("nan",)
    def probs(self, probs, site):
        return probs * float("nan")

@dataclass
class FitRaises(Method):
    name = "fit-raises"
    examples = ("fit-raises",)
    def fit(self, model, batches):
        raise KeyError("nothing learned")
    def context(self, context, site):
        return context * 0.5

@dataclass
class Halve(Method):
    name = "halve"
    examples = ("halve",)
    def context(self, context, site):
        return context * 0.5

@hookimpl
def register_methods(register):
    for cls in (Raises, Nan, FitRaises, Halve):
        register(cls)
"""


@pytest.fixture
def faulty(fresh_registry, tmp_path):
    path = tmp_path / "faulty.py"
    path.write_text(FAULTY, encoding="utf-8")
    fresh_registry.load([str(path)])
    return ["raises", "nan", "fit-raises", "halve"]


def test_a_failing_method_fails_its_own_cell(faulty, tiny_folder, tmp_path):
    result = _run(tiny_folder, tmp_path / "r", faulty)
    cells = _cells(result)
    assert [cells[name].status for name in faulty] == ["failed", "failed", "failed", "measured"]
    assert "raises: ArithmeticError: no such luck" in cells["raises"].error
    assert "nothing learned" in cells["fit-raises"].error
    assert cells["nan"].metrics == {} and cells["nan"].scores == {}
    reference = _cells(_run(tiny_folder, tmp_path / "alone", ["halve"]))["halve"]
    np.testing.assert_array_equal(cells["halve"].scores["acc"], reference.scores["acc"])
    assert "failed" in result.table() and len(result.failed) == 3


def test_failed_cells_are_tried_again(faulty, tiny_folder, tmp_path, evaluations):
    _run(tiny_folder, tmp_path / "r", ["raises", "halve"])
    before = len(evaluations)
    _run(tiny_folder, tmp_path / "r", ["raises", "halve"])
    assert len(evaluations) == before + 1


def test_fail_fast_stops_at_the_first(faulty, tiny_folder, tmp_path, capsys):
    result = _run(tiny_folder, tmp_path / "r", faulty, fail_fast=True)
    assert [item.cell["method"] for item in result.records] == ["dense", "uniform", "raises"]


def test_exit_status_tells_of_failure(faulty, tiny_folder, tmp_path, capsys):
    plugin = str(tmp_path / "faulty.py")
    arguments = [
        "run",
        "--models",
        tiny_folder,
        "--tasks",
        "pocket-sentiment",
        "--limit",
        "6",
        "--plugin",
        plugin,
    ]
    assert main([*arguments, "--methods", "raises,halve", "--records", str(tmp_path / "r")]) == 1
    assert main([*arguments, "--methods", "halve,prune80:on=cross", "--records", str(tmp_path / "r")]) == 0


def test_ctrl_c_keeps_what_is_recorded(tiny_folder, tmp_path, monkeypatch, capsys, evaluations):
    original = prepared.Prepared.evaluate

    def interrupted(self, *arguments, **options):
        if len(evaluations) == 2:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)

    monkeypatch.setattr(prepared.Prepared, "evaluate", interrupted)
    arguments = [
        "run",
        "--models",
        tiny_folder,
        "--tasks",
        "pocket-sentiment",
        "--limit",
        "6",
        "--methods",
        "prune80",
    ]
    assert main([*arguments, "--records", str(tmp_path)]) == 130
    assert "same command goes on" in capsys.readouterr().err
    assert sorted(path.stem for path in tmp_path.rglob("*.json")) == ["dense", "uniform"]
    evaluations.clear()
    monkeypatch.setattr(prepared.Prepared, "evaluate", original)
    assert main([*arguments, "--records", str(tmp_path)]) == 0
    assert len(evaluations) == 1


def _damage_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not weights")


def _damage_config(folder: Path) -> None:
    (folder / "config.json").write_text("{", encoding="utf-8")


def _other_labels(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(
        config.read_text().replace("negative", "cat").replace("positive", "dog"), encoding="utf-8"
    )


def _no_tokenizer(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()


UNREADABLE = {
    _damage_weights: "cannot be read",
    _damage_config: "cannot be read",
    _no_tokenizer: "cannot be read",
    _other_labels: "cat",
}


@pytest.mark.parametrize("damage", UNREADABLE, ids=lambda damage: damage.__name__)
def test_a_checkpoint_that_does_not_do(damage, tiny_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    damage(folder)
    with pytest.raises(UserError, match=UNREADABLE[damage]) as caught:
        _run(str(folder), tmp_path / "records")
    assert "\n" not in str(caught.value)


def test_a_head_that_does_not_fit(tiny_folder, tmp_path):
    with pytest.raises(UserError, match="QuestionAnswering"):
        attnbench.run(tiny_folder, "prune80", "pocket-qa", records=str(tmp_path), limit=4)


def test_a_hub_name_without_network_is_refused_at_once(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"HF_HOME.*pocket-bert|cannot be reached"):
        attnbench.run("nobody/nothing", "prune80", "pocket-sentiment", records=str(tmp_path))


CACHED = {
    "a tokenizer": ({"tokenizer.json": "{}"}, False),
    "no weights": ({"config.json": "{}"}, False),
    "all": ({"config.json": "{}", "model.safetensors": ""}, True),
    "a shard": (
        {"config.json": "{}", "a.safetensors": "", "m.index.json": '{"weight_map": {"x": "b.safetensors"}}'},
        False,
    ),
    "an index of another shape": (
        {"config.json": "{}", "a.safetensors": "", "m.index.json": "[]"},
        False,
    ),
    "an index without a map": ({"config.json": "{}", "a.safetensors": "", "m.index.json": "{}"}, False),
    "half an index": ({"config.json": "{}", "a.safetensors": "", "m.index.json": '{"weight_'}, False),
    "its shards": (
        {"config.json": "{}", "b.safetensors": "", "m.index.json": '{"weight_map": {"x": "b.safetensors"}}'},
        True,
    ),
}


@pytest.mark.parametrize("name", CACHED)
def test_a_checkpoint_cached_in_part_is_fetched(name, tmp_path, monkeypatch):
    import huggingface_hub

    files, whole = CACHED[name]
    for file, text in files.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    fetched = []

    def snapshot(repository, local_files_only=False, **options):
        if not local_files_only:
            fetched.append(repository)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(hub, "reachable", lambda url: True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert hub.download("some/model", ["*"], "another") == str(tmp_path)
    assert fetched == ([] if whole else ["some/model"])


def test_a_config_of_another_shape_names_no_code(tmp_path):
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    assert hub.whole(tmp_path) and not hub.whole(tmp_path, own_code=True)


def test_to_pandas_has_a_row_a_cell(tiny_folder, tmp_path):
    frame = _run(tiny_folder, tmp_path).to_pandas()
    assert len(frame) == len(CELLS)


def test_data_that_cannot_be_read_does_not_keep_the_rest_from_being_measured(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text('text,label\ngood,positive\n"open,negative\n', encoding="utf-8")
    asked = ["run", "--models", "bert", "--tasks", "bad.csv,pocket-sentiment", "--limit", "8"]
    assert main(asked) == 2
    table, error = capfd.readouterr()
    assert "pocket-bert pocket-sentiment (8)" in table and "uniform" in table
    assert "pocket-bert · bad.csv: not measured: bad.csv, line 3" in error
    assert "1 of 2 pairs of model and task could not be measured" in error.splitlines()[-1]
    folder = tmp_path / "attnbench-records" / "pocket-bert" / "pocket-sentiment"
    assert {file.stem for file in folder.glob("*.json")} == {"dense", "uniform"}
    with pytest.raises(UserError, match=r"^bad\.csv, line 3"):
        attnbench.run("bert", (), "bad.csv", limit=8)


def test_a_model_for_other_tasks_is_not_applicable_among_several(tmp_path, capfd):
    folders = [str(models.POCKET / name) for name in ("bert-sentiment", "gpt-language", "marian-translation")]
    tasks = ["pocket-sentiment", "pocket-agreement", "pocket-translation"]
    records = str(tmp_path / "records")
    found = attnbench.run(folders, (), tasks, limit=4, records=records).records
    assert [item.status for item in found].count("measured") == 6 and len(found) == 18
    reasons = {item.error for item in found if item.status != "measured"}
    assert {item.status for item in found} == {"measured", "not applicable"} and len(reasons) == 6
    assert all("does not fit task" in reason for reason in reasons)
    asked = ["run", "--models", folders[0], "--tasks", "pocket-agreement", "--records", records]
    assert main(asked) == 2
    assert "does not fit task 'pocket-agreement'" in capfd.readouterr().err


def test_labels_of_other_tasks_are_not_applicable_among_several(tiny_folder, tmp_path):
    (tmp_path / "made.yaml").write_text(
        "task: made\nclass: !function attnbench.backends.classification.Classify\n"
        "custom_dataset: !function attnbench.pocket.text.documents\ndataset_kwargs: {task: sentiment}\n"
        "validation_split: validation\ndoc_to_text: text\ndoc_to_target: label\n"
        "doc_to_choice: [one, two]\nmetric_list: [{metric: acc}]\n"
    )
    file, records = str(tmp_path / "made.yaml"), str(tmp_path / "records")
    found = attnbench.run(tiny_folder, (), ["pocket-sentiment", file], limit=4, records=records).records
    assert [item.status for item in found] == ["measured"] * 2 + ["not applicable"] * 2
    assert "made.yaml', line 8: the labels do not fit: the task has one, two" in found[-1].error
    with pytest.raises(UserError, match=r"made.yaml', line 8: the labels do not fit"):
        attnbench.run(tiny_folder, (), file, limit=4, records=records)


@pytest.mark.parametrize(
    ("dense", "found", "changed"),
    [
        ([[-3345.144], [-120.0]], [[-3345.345], [-120.1]], 1.0),  # log-likelihoods of a page and a line
        ([[-3345.144], [-120.0]], [[-3345.145], [-120.0001]], 0.0),
        ([[4.0, -4.0], [0.001, 3.0]], [[4.00001, -4.0], [0.00101, 3.0]], 0.0),
        ([[4.0, -4.0], [0.001, 3.0]], [[4.0, -4.0], [0.003, 3.0]], 0.5),
        ([[1e-3], [2e-3]], [[1.001e-3], [2e-3]], 0.5),
        ([[9.0, 12.0, 7.5]], [[9.0, 13.0, 7.5]], 1.0),  # a span's last character
        ([[255.0]], [[254.0]], 1.0),  # of a text
    ],
)
def test_the_receipt_tells_a_change_from_the_order_of_a_sum(dense, found, changed):
    before, now = ({"outputs": np.array(each, np.float32)} for each in (dense, found))
    receipt = answered.effect(before, now, "float32")
    assert receipt == {"changed": changed, "effect": "applied" if changed else "no effect"}


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [(0.925, 0.0152, "0.9250 ± 0.0152"), (1.25e26, 2.57e26, "1.25e+26 ± 2.57e+26"), (0.5, None, "0.5000")],
)
def test_a_finished_cell_is_one_line(value, stderr, text):
    item = Record({"model": "m", "task": "t", "method": "prune80"}, "measured", seconds={"evaluate": 2.0})
    item.metrics = {"acc": {"value": value, "stderr": stderr}}
    assert console.describe(item) == f"m · t · prune80: acc {text}, 2.0 s"
