"""Encoder-decoders on translation: sacrebleu's own scores, any batch, greedy and beam, methods and fits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sacrebleu
import tiny_tasks
import torch

import attnbench
from attnbench.backends import lm_eval
from attnbench.doors import lm_eval_cli
from attnbench.engine.serving.attention import apply
from attnbench.errors import NotApplicable, UserError
from attnbench.inputs.models import Checkpoint
from attnbench.inputs.settings import Settings
from attnbench.statistics import aggregates

WORDS = [f"w{k}" for k in range(40)]
DATA = """
import random

def made(split):
    rng = random.Random(split)
    for _ in range(14):
        words = [f"w{rng.randrange(40)}" for _ in range(rng.randint(1, 12))]
        yield {"source": " ".join(words), "target": " ".join(reversed(words))}
"""
TRANSLATE = {
    "class": "!function attnbench.backends.seq2seq.Translate",
    "custom_dataset": "!function made.made",
    "validation_split": "validation",
    "doc_to_text": "source",
    "doc_to_target": "target",
    "metric_list": "[{metric: bleu}, {metric: chrf}]",
    "metadata": "{generation: {max_new_tokens: 15}, calibration: {split: train, samples: 9}}",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Build a tiny translation model once for each choice: family, positions, special tokens."""
    return tiny_tasks.built_once(tmp_path_factory, _build)


def _build(folder, family="marian", positions=32, special=("pad", "eos")):
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    known = {token: k for k, token in enumerate(["<pad>", "<eos>", "[UNK]", *WORDS])}
    raw = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.WhitespaceSplit(), decoders.WordPiece()
    raw.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        model_input_names=["input_ids", "attention_mask"],
        **{f"{name}_token": f"<{name}>" for name in special},
    )
    ends = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "vocab_size": len(known)}
    if family == "t5":
        size = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
        model = transformers.T5ForConditionalGeneration(
            transformers.T5Config(dropout_rate=0.0, **size, **ends)
        )
    else:
        size = {
            f"{side}_{part}": 2 for side in ("encoder", "decoder") for part in ("layers", "attention_heads")
        }
        config = transformers.MarianConfig(
            d_model=16, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=positions,
            dropout=0.0, forced_eos_token_id=1, tie_word_embeddings=False, **size, **ends,
        )  # fmt: skip
        model = transformers.MarianMTModel(config)
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            weight.data.normal_(std=0.9 if "attn" in name or "Attention" in name else 0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def task(tmp_path):
    def write(**changes):
        (tmp_path / "made.py").write_text(DATA)
        content = {"task": "made", **TRANSLATE, **changes}
        lines = [f"{key}: {value}" for key, value in content.items() if value is not None]
        (tmp_path / "made.yaml").write_text("\n".join(lines))
        return str(tmp_path)

    return write


def _prepare(folder, checkpoint, **options):
    return lm_eval.prepare("made", checkpoint, Settings(include_path=folder, **options))


def _texts(prepared):
    return [instance.resps[0] for instance in prepared.task.instances]


def _beams(number):
    return f"{{generation: {{max_new_tokens: 15, num_beams: {number}}}}}"


@pytest.mark.parametrize("family", ["marian", "t5"])
@pytest.mark.parametrize("beams", [1, 4])
def test_translations_and_scores_are_those_of_a_loop_by_hand(family, beams, checkpoint, task):
    chosen = checkpoint(family)
    prepared = _prepare(task(metadata=_beams(beams)), chosen)
    model, tokenizer = chosen.load(prepared.head), chosen.tokenizer()
    prepared.check(model)
    found = prepared.evaluate(model, batch_size=5)
    expected = []
    for instance in prepared.task.instances:
        ids = tokenizer(instance.doc["source"], return_tensors="pt").input_ids
        made = model.generate(ids, max_new_tokens=15, max_length=None, num_beams=beams, do_sample=False)
        expected.append(tokenizer.decode(made[0], skip_special_tokens=True).strip())
    assert _texts(prepared) == expected and len(set(expected)) > 3
    references = [[instance.doc["target"] for instance in prepared.task.instances]]
    values = {name: metric["value"] for name, metric in found.metrics.items()}
    assert values["bleu"] == pytest.approx(sacrebleu.corpus_bleu(expected, references).score)
    assert values["chrf"] == pytest.approx(sacrebleu.corpus_chrf(expected, references).score)
    for name, metric in found.metrics.items():
        assert metric["aggregate"] == name and metric["higher_is_better"] and metric["stderr"] >= 0
        assert aggregates.aggregate(name, found.scores[name]) == pytest.approx(values[name])


@pytest.mark.parametrize("family", ["marian", "t5"])
@pytest.mark.parametrize("spec", ["", "prune50"])
def test_results_depend_on_no_batch_and_no_cache(family, spec, checkpoint, task, monkeypatch):
    chosen = checkpoint(family)
    prepared = _prepare(task(), chosen)
    model = chosen.load("seq2seq")
    generate = type(model).generate
    with apply(model, *filter(None, [spec])):
        first = prepared.evaluate(model, batch_size=1)
        texts = _texts(prepared)
        for options in ({"batch_size": 4}, {"batch_size": 64}, {"batch_tokens": 20}):
            assert prepared.evaluate(model, **options).metrics == first.metrics and _texts(prepared) == texts
        monkeypatch.setattr(
            type(model), "generate", lambda *args, **given: generate(*args, **{**given, "use_cache": False})
        )
        assert prepared.evaluate(model).metrics == first.metrics and _texts(prepared) == texts


def test_a_second_evaluation_starts_afresh(checkpoint, task):
    chosen = checkpoint()
    prepared = _prepare(task(), chosen)
    model = chosen.load("seq2seq")
    first = prepared.evaluate(model)
    with apply(model, "uniform") as applied:
        between = prepared.evaluate(model)
    again = prepared.evaluate(model)
    assert applied.hit == applied.expected == 6
    outputs = [np.stack(each.outputs) for each in (first, between, again)]
    assert (outputs[0] == outputs[2]).all() and (outputs[0] != outputs[1]).any()


def test_progress_and_limit(checkpoint, task):
    chosen, heard = checkpoint(), []
    prepared = _prepare(task(), chosen, limit=6)
    prepared.evaluate(chosen.load("seq2seq"), batch_size=4, progress=heard.append)
    assert heard == [4, 6] and prepared.samples == 6


def test_batches_teach_with_the_translation(checkpoint, task):
    chosen = checkpoint()
    prepared = _prepare(task(), chosen)
    tokenizer, model = chosen.tokenizer(), chosen.load("seq2seq")
    for batches in (prepared.calibration(batch_size=4), prepared.batches(9, batch_size=4)):
        assert sum(len(batch["input_ids"]) for batch in batches) == 9
        for batch in batches:
            for source, labels in zip(batch["input_ids"], batch["labels"], strict=True):
                words = tokenizer.decode(source, skip_special_tokens=True).split()
                target = tokenizer.decode(labels[labels != -100], skip_special_tokens=True).split()
                assert target == words[::-1]
            assert (batch["decoder_attention_mask"] == (batch["labels"] != -100)).all()
            with torch.no_grad():
                assert model(**batch).loss.isfinite()
    assert {batch["input_ids"].shape[1] for batch in prepared.batches(9)} == {
        max(len(instance.doc["source"].split()) + 1 for instance in prepared.task.instances[:9])
    }
    assert prepared.fingerprints["calibration"] == "made.made:train[9] seed 0"
    with pytest.raises(NotApplicable, match="names no calibration split"):
        _prepare(task(metadata=None), chosen).calibration()


def test_a_run_measures_methods_and_lm_evals_command_line_agrees(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("lm_eval.utils._LOGGING_CONFIGURED", True)
    path = checkpoint(positions=200).path
    methods = "prune50,logquant3:on=cross,heads50:gradient,mask50:on=encoder"
    ran = attnbench.run(path, methods, "pocket-translation", limit=8, records=str(tmp_path / "records"))
    found = {item.cell["method"]: item for item in ran.records}
    assert {item.status for item in ran.records} == {"measured"}, [item.error for item in ran.records]
    assert (
        found["prune50"].receipt["sites_hit"] == 6 and found["logquant3:on=cross"].receipt["sites_hit"] == 2
    )
    out = tmp_path / "out"
    arguments = ["--model_args", f"pretrained={path},method=prune50", "--tasks", "pocket-translation"]
    command = ["run", "--model", "attnbench", "--limit", "8", "--output_path", str(out), *arguments]
    assert lm_eval_cli.main(command) == 0
    (file,) = out.rglob("results_*.json")
    results = json.loads(file.read_text())["results"]["pocket-translation"]
    for name, metric in found["prune50"].metrics.items():
        assert results[f"{name},none"] == pytest.approx(metric["value"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": 8}, r"\d+ of 14 sources of task 'made' have over 8 tokens, what the model takes"),
        ({"positions": 15}, "asks for up to 15 new tokens, the model has 15 positions"),
        ({"special": ("eos",)}, "no pad token: batches cannot be made"),
        ({"special": ("pad",)}, "no eos token: what it writes would have no end"),
    ],
)
def test_models_that_do_not_fit_are_refused(options, message, checkpoint, task):
    chosen = checkpoint(**options)
    prepared = _prepare(task(), chosen)
    with pytest.raises(UserError, match=message):
        prepared.check(chosen.load("seq2seq"))


def test_other_tasks_and_models_are_refused(checkpoint, task, tiny_folder):
    with pytest.raises(
        UserError, match=r"does not fit task 'made': it is a Bert.*, the task needs an encoder-d"
    ):
        _prepare(task(), Checkpoint("tiny", tiny_folder, "folder"))
    for name in ("pocket-sentiment", "pocket-perplexity"):
        with pytest.raises(UserError, match=f"does not fit task '{name}'"):
            lm_eval.prepare(name, checkpoint(), Settings())
    model = checkpoint().load("seq2seq")
    with pytest.raises(RuntimeError, match="training mode"):
        _prepare(task(), checkpoint()).evaluate(model.train())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"doc_to_text": None}, "needs doc_to_text and doc_to_target"),
        ({"doc_to_target": "german"}, "no column 'german'"),
        ({"metadata": "{generation: {beams: 4}}"}, "generation takes max_new_tokens and num_beams"),
        ({"metadata": "{generation: {num_beams: 0}}"}, "numbers above 0"),
        ({"metric_list": "[{metric: ter}]"}, "Translate has no metric 'ter'. It has bleu, chrf"),
    ],
)
def test_a_task_file_that_is_wrong(changes, message, checkpoint, task):
    with pytest.raises(UserError, match=message):
        _prepare(task(**changes), checkpoint())
