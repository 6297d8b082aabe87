"""`attnbench export`: what it writes, who can load it, that it answers as the simulated model does."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from closeness import close

import attnbench
from attnbench.cli.main import main
from attnbench.engine.realised import sidecar
from attnbench.errors import UserError
from attnbench.inputs import models, tasks
from attnbench.inputs.settings import Settings
from attnbench.matrix import export, model_card
from attnbench.records import record

TASK = "pocket-sentiment"
FIXED = "heads:fixed:off=0.1:off=1"


def _batch():
    ids = torch.randint(5, 60, (4, 9), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _logits(model):
    with torch.no_grad():
        return model(**_batch()).logits


def _size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def _plain(folder):
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def exported(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "smaller"
    assert main(["export", "--model", tiny_folder, "--task", TASK, "--method", FIXED, str(folder)]) == 0
    return folder


def test_everybody_loads_it_and_gets_the_masked_models_answers(exported, tiny_folder):
    whole = models.find(tiny_folder, TASK).load("classification")
    with attnbench.apply(whole, FIXED):
        expected = _logits(whole)
    plain = _plain(exported)
    ours = sidecar.loaded(models.find(str(exported), TASK), "classification", Settings())
    for model in (plain, ours):
        close(_logits(model), expected, layers=2)
    assert (_logits(whole) - expected).abs().max() > 1e-3
    assert _size(plain) == _size(whole) > _size(ours)
    layers = ours.bert.encoder.layer
    assert layers[0].attention.self.query.weight.shape == (24, 32)
    assert layers[1].attention.self.query.weight.shape == (0, 32)
    sidecar.load(plain, exported)
    assert _size(plain) == _size(ours)
    close(_logits(plain), expected, layers=2)


def test_the_sidecar_and_the_readme_say_what_is_left(exported):
    content = json.loads((exported / sidecar.NAME).read_text())
    assert content["heads"] == {"encoder 0": [0, 2, 3], "encoder 1": []}
    assert content["of"] == {"encoder 0": 4, "encoder 1": 4} and content["method"] == FIXED
    readme = (exported / "README.md").read_text()
    assert (content["calibration"], content["seed"]) == (None, 0)
    assert (
        f"on {TASK}, seed 0: 3 of 8 heads are left" in readme
        and "Plain transformers loads the folder" in readme
    )


def test_a_run_on_it_gives_the_simulated_models_scores(exported, tiny_folder, tmp_path):
    simulated = attnbench.run(tiny_folder, FIXED, TASK, limit=30, records=str(tmp_path / "a")).records
    real = attnbench.run(str(exported), "prune50", TASK, limit=30, records=str(tmp_path / "b")).records
    by_method = {record.cell["method"]: record for record in simulated}
    assert real[0].cell["method"] == "dense" and real[0].metrics["acc"] == by_method[FIXED].metrics["acc"]
    assert all(record.status == "measured" for record in real)


def test_trained_weights_are_written(tiny_folder, tmp_path):
    content = export.export(tiny_folder, TASK, "heads50:gradient+finetune3:lr=0.01", tmp_path / "tuned")
    assert sum(map(len, content["heads"].values())) == 4
    ours = models.find(str(tmp_path / "tuned"), TASK).load("classification")
    whole = models.find(tiny_folder, TASK).load("classification")
    assert not torch.equal(ours.classifier.weight, whole.classifier.weight)
    gone = [
        f"heads:fixed:off={key.split()[1]}.{head}"
        for key, own in content["heads"].items()
        for head in {0, 1, 2, 3} - {*own}
    ]
    whole.load_state_dict(_plain(tmp_path / "tuned").state_dict())
    with attnbench.apply(whole, "+".join(gone)):
        close(_logits(ours), _logits(whole), layers=2)


def test_a_layer_without_heads_takes_part_in_nothing(exported, tmp_path):
    specs = ["heads50:gradient", "heads50:output", "prune80"]
    records = attnbench.run(str(exported), specs, TASK, limit=30, records=str(tmp_path)).records
    by_method = {record.cell["method"]: record for record in records}
    assert all(by_method[spec].status == "measured" for spec in specs)
    assert by_method["prune80"].measured["heads"] == 1
    for spec in specs[:2]:  # 3 heads are left, all in layer 0: floor(3 / 2) of them goes
        alive = by_method[spec].fitted[spec]["alive_"]
        assert list(alive) == ["encoder 0"] and sum(alive["encoder 0"]) == 2


def test_heads_that_share_keys_and_values_go_one_by_one(tmp_path):
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "smaller"
    content = export.export("llama", "pocket-perplexity", "heads:fixed:off=0.0:off=2.1:off=3", folder)
    assert [len(heads) for heads in content["heads"].values()] == [3, 4, 3, 0]
    whole = models.find("llama", "pocket-perplexity").load("causal-lm")
    batch = {
        "input_ids": torch.arange(5, 14).view(1, 9),
        "attention_mask": torch.ones(1, 9, dtype=torch.long),
    }
    options = {"max_new_tokens": 5, "do_sample": False}
    with torch.no_grad(), attnbench.apply(whole, content["method"]):
        expected, written = whole(**batch).logits, whole.generate(**batch, **options)
    ours = sidecar.loaded(models.find(str(folder), "pocket-perplexity"), "causal-lm", Settings())
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    for model in (ours, plain):
        with torch.no_grad():
            close(model(**batch).logits, expected, layers=4)
            assert torch.equal(model.generate(**batch, **options), written)
    rows = [model.model.layers[0].self_attn.q_proj.weight.shape[0] for model in (ours, plain)]
    assert rows[0] * 4 == rows[1] * 3


def test_the_sidecar_changes_the_fingerprint(exported, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    before = models.find(str(copy), TASK).fingerprint
    (copy / sidecar.NAME).unlink()
    assert models.find(str(copy), TASK).fingerprint != before


MISTAKES = {
    f"export --model TINY --task {TASK} --method prune80 new": "prune is only simulated",
    f"export --model TINY --task {TASK} --method heads:fixed:off=9 new": "no layer 9",
    f"export --model TINY --task {TASK} --method heads50:l1 new": "cannot tell the heads apart",
    f"export --model TINY --task {TASK} --method {FIXED} .": "give a new folder",
    f"export --model TINY --task {TASK} --method {FIXED} file": "give a new folder",
    f"export --model EXPORTED --task {TASK} --method {FIXED} new": "an export already",
    f"export --model TINY --task {TASK} --method heads:fixed:off=0:on=cross new": "no attention at on=cross",
    f"export --model TINY --task {TASK} --method gates:l0:on=cross new": "no attention at on=cross",
    f"export --model TINY --task {TASK} --method heads50:entropy:layers=7 new": "no attention at layers=7",
    "export --model TINY new": "--task",
    "export --model bert --task sentiment --method heads50:random new": "Did you mean pocket-sentiment?",
    "export --model bert --task sst2 --method heads50:random new":
        "heads50:random on pocket-bert, sst2: pocket-bert is trained for pocket-qa, pocket-sentiment, not",
}  # fmt: skip


@pytest.mark.parametrize(("line", "says"), MISTAKES.items())
def test_a_mistake_is_one_line_and_writes_nothing(
    line, says, capsys, tmp_path, monkeypatch, tiny_folder, exported
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    line = line.replace("TINY", tiny_folder).replace("EXPORTED", str(exported))
    assert main(line.split()) == 2
    captured = capsys.readouterr().err.splitlines()
    assert says in captured[-1] and captured[-1].startswith("attnbench: ")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 9}, "schema 9"),
        ({"of": {"encoder 0": 12}}, "of another model"),
        ({"heads": None}, "of another model"),
        (None, "cannot be read"),
    ],
)
def test_a_sidecar_that_does_not_fit_is_refused(change, says, exported, tmp_path):
    content = json.loads((exported / sidecar.NAME).read_text())
    text = "{" if change is None else json.dumps({**content, **change})
    (tmp_path / sidecar.NAME).write_text(text)
    model = sidecar.loaded(models.find(str(exported), TASK), "classification", Settings())
    whole = type(model)(model.config)
    with pytest.raises(UserError, match=says):
        sidecar.load(whole, tmp_path)


def test_an_export_beside_its_original(exported, tiny_folder, tmp_path, capsys, monkeypatch):
    """The scores are those of two runs, the sizes those of the weights, the command is export's last line."""
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--model", tiny_folder, "--task", TASK, "--method", FIXED, "./again"]) == 0
    told = capsys.readouterr().err.splitlines()[-1].removeprefix("next: attnbench ")
    assert told == f"compare ./again {tiny_folder} --task {TASK}"
    assert main([*told.split(), "--limit", "30"]) == 0
    lines = capsys.readouterr().out.splitlines()
    runs = [
        attnbench.run(folder, (), TASK, limit=30, records=str(tmp_path / "other")).records[0]
        for folder in ("./again", tiny_folder)
    ]
    ours, theirs = (f"{100 * run.metrics['acc']['value']:.1f}" for run in runs)
    assert lines[0].startswith(f"{TASK} acc: again {ours}, tiny {theirs}: ") and "30 samples" in lines[0]
    cells = {line[:20].strip(): line[20:].split() for line in lines if not line.startswith(" ")}
    whole = _plain("./again")
    smaller = sidecar.loaded(models.find("./again", TASK), "classification", Settings())
    assert cells["parameters"][:2] == [f"{_size(each):,}" for each in (smaller, whole)]
    size = (tmp_path / "again" / "model.safetensors").stat().st_size
    assert cells["weights on disk"][0] == f"{size / 1e6:.1f}"
    assert float(cells["attention's memory"][-1]) < 1 and float(cells["latency"][4]) > 0
    assert list((tmp_path / "attnbench-records").rglob("dense.json"))


def test_weights_that_are_stored_in_other_types_are_told_apart(tiny_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_folder, "half")
    _plain(tiny_folder).half().save_pretrained("half")
    assert main(["compare", "./half", tiny_folder, "--task", TASK, "--limit", "5"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("weights on disk"))
    assert "(F16)" in line and "(F32)" in line


BESIDE = {
    "compare ./file TINY --task {}": "is a file. Give a folder",
    "compare TINY TINY --task {}": "beside itself",
    "compare TINY ./empty --task {}": "no config.json there",
    "compare TINY bert": "give --task",
    "compare TINY nobody --task {}": "unknown model 'nobody'",
    "compare TINY gpt --task {}": "pocket-gpt is trained for",
    "compare TINY bert --task {} --model bert": "leave it out",
    "compare prune80 dense --limit 5": "of which one is a folder",
}


@pytest.mark.parametrize(("line", "says"), BESIDE.items())
def test_two_models_that_do_not_compare_are_told(line, says, tiny_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert main(line.replace("TINY", tiny_folder).format(TASK).split()) == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_scores_in_the_card_are_those_of_the_checkpoint_itself(tiny_folder, tmp_path):
    folder, place = tmp_path / "smaller", tmp_path / "records"
    command = ["export", "--model", tiny_folder, "--task", TASK, "--method", FIXED, str(folder)]
    assert main([*command, "--records", str(place)]) == 0
    own, whole = (record.read(next(place.glob(f"{name}/*/dense.json"))) for name in ("smaller", "tiny*"))
    card = (folder / "README.md").read_text()
    (line,) = (line for line in card.splitlines() if line.startswith(f"| {TASK}"))
    told = [cell.strip() for cell in line.split("|")]
    for cell, item in zip(told[3:5], (own, whole), strict=True):
        assert cell.split(" ± ")[0] == f"{100 * item.scores['acc'].mean():.1f}"
    assert not (folder / model_card.RESULTS).exists()  # of generated text: no data set of the Hub
    assert "eval_results" not in card and "Not measured" not in card
    assert _plain(folder).config.num_labels == 2


def test_a_score_on_data_of_the_hub_is_written_as_the_hub_reads_it():
    import yaml
    from huggingface_hub import eval_result_entries_to_yaml, parse_eval_result_entries
    from sample_records import record as made
    from sample_records import right

    own, source = (
        made("dense", model, acc=right(872, wrong)) for model, wrong in (("small", 90), ("big", 80))
    )
    score = model_card.Score(own, source, tasks.find("sst2"))
    read = parse_eval_result_entries(yaml.safe_load(yaml.safe_dump(model_card.results(score, "heads50:l2"))))
    assert (read[0].dataset_id, read[0].task_id) == ("stanfordnlp/sst2", "default")
    assert read[0].value == own.scores["acc"].mean() and "heads50:l2" in read[0].notes
    assert eval_result_entries_to_yaml(read) == model_card.results(score, "heads50:l2")
    own.settings["limit"] = 100
    assert model_card.results(score, "heads50:l2") == []
    generated = model_card.Score(source, source, tasks.find(TASK))
    assert model_card.results(generated, "heads50:l2") == []
