"""What a model does not take is found before the first cell, and named by its row or its setting."""

from __future__ import annotations

import copy
import csv
import json
import re

import architectures
import numpy as np
import pytest
import tiny_tasks
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import attnbench
from attnbench.backends import lm_eval
from attnbench.backends.encoders import limits
from attnbench.engine.places import probing
from attnbench.errors import Misfit, NotApplicable, UserError
from attnbench.inputs.models import Checkpoint
from attnbench.inputs.settings import Settings
from attnbench.matrix.bench import Bench
from attnbench.matrix.request import Request, split
from attnbench.records import provenance

WORDS = [f"w{k}" for k in range(60)]
SPECIAL = {"pad": "<pad>", "unk": "<unk>", "bos": "<s>", "eos": "</s>"}
LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
PAIR = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "decoder_start_token_id": 3,
}  # fmt: skip
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
TEXTS = ["w1 w2 w3", "w4 w5", "w6 w7 w8 w9 w10", "w11", "w12 w13 w14", "w15 w16"]


def _tokenizer(frame="$A </s>", extra=()):
    vocabulary = {token: k for k, token in enumerate([*SPECIAL.values(), *WORDS, *extra])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    used = [(token, vocabulary[token]) for token in SPECIAL.values() if token in frame.split()]
    if used:
        raw.post_processor = processors.TemplateProcessing(single=frame, special_tokens=used)
    named = {f"{key}_token": token for key, token in SPECIAL.items()}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, **named)


def _model(kind, **config):
    torch.manual_seed(0)
    cls = getattr(transformers, kind)
    ids = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    model = cls(cls.config_class(**{**ids, **config})).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data.normal_(std=0.4)
    return model


def _saved(folder, kind, frame="$A </s>", extra=(), **config):
    _model(kind, **config).save_pretrained(folder)
    _tokenizer(frame, extra).save_pretrained(folder)
    return str(folder)


def _csv(path, rows, header=("text", "label")):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def _alone(folder, texts, **options):
    """Return the logits that plain transformers gives each text by itself: (texts, labels)."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return torch.cat(
            [model(**words(text, return_tensors="pt", **options)).logits for text in texts]
        ).numpy()


@pytest.fixture
def records(tmp_path):
    def run(model, task, methods=(), **settings):
        found = attnbench.run(model, methods, task, records=str(tmp_path / "records"), **settings).records
        return {item.cell["method"]: item for item in found}

    return run


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_tasks.checkpoint(tmp_path_factory.mktemp("bert"), positions=24).path


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("BertModel", LAYERS | {"max_position_embeddings": 18}),
        ("RobertaModel", LAYERS | {"max_position_embeddings": 20, "pad_token_id": 1}),
        ("MPNetModel", LAYERS | {"max_position_embeddings": 20, "pad_token_id": 1}),
        ("IBertModel", LAYERS | {"max_position_embeddings": 20, "pad_token_id": 1}),
        ("NystromformerModel", LAYERS | {"max_position_embeddings": 18}),
        ("XLMModel", {"emb_dim": 32, "n_layers": 1, "n_heads": 4, "max_position_embeddings": 18}),
        ("GPT2Model", {"n_positions": 18, "n_embd": 32, "n_layer": 1, "n_head": 4}),
        ("GPTNeoModel", {"hidden_size": 32, "num_layers": 1, "num_heads": 4, "max_position_embeddings": 18,
                         "attention_types": [[["global"], 1]]}),
        ("OPTModel", {"max_position_embeddings": 18, "ffn_dim": 48, "word_embed_proj_dim": 32,
                      "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}),
        ("BartModel", PAIR | {"max_position_embeddings": 18}),
    ],
)  # fmt: skip
def test_positions_of_any_name_are_as_many_as_a_model_really_takes(kind, config):
    model = _model(kind, **config)
    limit = limits.of(model).positions
    ids = torch.arange(4, 4 + 30)[None]
    with torch.no_grad():
        model(input_ids=ids[:, :limit])
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=ids[:, : limit + 1])


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("LlamaModel", LAYERS | {"max_position_embeddings": 8}),
        ("T5Model", T5),
        ("BloomModel", {"hidden_size": 32, "n_layer": 1, "n_head": 4}),
    ],
)
def test_positions_that_are_computed_are_no_limit(kind, config):
    assert limits.of(_model(kind, **config)).positions is None


def test_a_model_that_runs_on_no_few_tokens_is_one_line(monkeypatch):
    with pytest.raises(UserError, match=r"BertModel does not run on 6 tokens .* this model is not supported"):
        limits.of(_model("BertModel", **LAYERS, max_position_embeddings=4))
    model = _model("BertModel", **LAYERS)

    def refuse():
        raise NotImplementedError

    monkeypatch.setattr(model, "get_input_embeddings", refuse)
    assert probing.word_embeddings(model) is None
    assert limits.of(model).vocabulary is None and limits.of(model).positions == 512


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("GPT2ForSequenceClassification", {"n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 4}),
        ("BartForSequenceClassification", PAIR | {"max_position_embeddings": 16}),
    ],
)
def test_a_text_that_is_too_long_is_named_with_both_ways_to_cut_it(kind, config, tmp_path, records):
    folder = _saved(tmp_path / "m", kind, **config)
    task = _csv(tmp_path / "own.csv", [("w1 w2", 0), (" ".join(WORDS[:30]), 1)])
    with pytest.raises(UserError, match=r"own\.csv, line 3: 1 of 2 inputs .* over 16 tokens") as told:
        records(folder, task)
    assert "--max-length 16" in str(told.value) and "max_seq_length" in str(told.value)
    assert records(folder, task, max_length=16)["dense"].status == "measured"


def test_max_length_cuts_as_plain_transformers_does(bert, tmp_path, records):
    texts = [*TEXTS, " ".join(WORDS[5:45]), " ".join(WORDS[:40])]
    labels = _alone(bert, texts, truncation=True, max_length=7).argmax(1)
    task = _csv(tmp_path / "own.csv", zip(texts, labels, strict=True))
    found = records(bert, task, "prune80", max_length=7)
    assert found["dense"].metrics["acc"]["value"] == 1.0
    assert found["prune80"].settings["max_length"] == 7
    assert found["dense"].settings["notes"] == ["2 of 8 inputs of own are cut to fit"]
    with pytest.raises(
        UserError, match="cut to 2 tokens, of which the tokenizer adds 2, nothing of a text is"
    ):
        records(bert, task, max_length=2, replace=True)


def test_max_length_is_part_of_an_identity_only_where_it_is_set(bert, tmp_path, records):
    plain, cut = Settings().recorded(), Settings(max_length=5).recorded()
    assert "max_length" not in plain and cut == plain | {"max_length": 5}
    cell = {"model": "m", "task": "t", "method": "dense"}
    identities = {
        provenance.identity(cell, {}, each, None) for each in (plain, cut, Settings(max_length=6).recorded())
    }
    assert len(identities) == 3
    assert provenance.identity(cell, {}, plain | {"max_length": None}, None) in identities
    with pytest.raises(UserError, match="max_length=0 is not a whole number of at least 1"):
        Settings(max_length=0)
    task = _csv(tmp_path / "own.csv", zip(TEXTS, [0, 1] * 3, strict=True))
    first = records(bert, task)["dense"].provenance["identity"]
    assert records(bert, task, max_length=4, replace=True)["dense"].provenance["identity"] != first


def test_max_length_is_refused_where_no_text_is_cut():
    with pytest.raises(
        UserError, match="--max-length cuts the texts of a classifier's task, which 'pocket-qa'"
    ):
        Bench("bert", "pocket-qa", Settings(max_length=9))


def test_a_token_without_an_embedding_is_named_with_its_row(tmp_path, records):
    folder = tiny_tasks.checkpoint(tmp_path / "m").path
    words = transformers.AutoTokenizer.from_pretrained(folder)
    words.add_tokens(["<url>"])
    words.save_pretrained(folder)
    task = _csv(tmp_path / "own.csv", [("w1", 0), ("w2 <url>", 1), ("w3", 0)])
    told = r"own\.csv, line 3: the tokenizer gives '<url>' the id 65, the model has embeddings for 65"
    with pytest.raises(UserError, match=told):
        records(folder, task)
    assert records(folder, _csv(tmp_path / "other.csv", [("w1", 0), ("w3", 1)]))["dense"].status == "measured"


@pytest.mark.parametrize("batch_size", [1, 3, 32])
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("BartForSequenceClassification", PAIR | {"max_position_embeddings": 32}),
        ("T5ForSequenceClassification", T5 | {"num_decoder_layers": 2}),
    ],
)
def test_ends_inside_texts_go_into_batches_of_their_own(kind, config, batch_size, tmp_path, records):
    folder = _saved(tmp_path / "m", kind, num_labels=3, **config)
    texts = [*TEXTS, "w1 </s> w2", "w3 </s> w4 </s> w5", "</s> w9"]
    task = _csv(
        tmp_path / "own.csv",
        [(text, int(said.argmax()), "test") for text, said in zip(texts, _alone(folder, texts), strict=True)]
        + [(f"{text} w50", k % 3, "train") for k, text in enumerate(texts)],
        ("text", "label", "split"),
    )
    found = records(folder, task, "heads25:gradient", batch_size=batch_size)
    assert found["dense"].error is None
    assert found["dense"].metrics["acc"]["value"] == 1.0
    assert found["heads25:gradient"].status == "measured", found["heads25:gradient"].error


def test_a_text_without_the_end_that_a_classifier_reads_is_named(tmp_path, records):
    folder = _saved(tmp_path / "m", "BartForSequenceClassification", frame="$A", **PAIR)
    with pytest.raises(UserError, match=r"own\.csv, line 2: no '</s>' in it, at whose place this classifier"):
        records(folder, _csv(tmp_path / "own.csv", [("w1 w2", 0), ("w3", 1)]))


NAMES = ("toxic", "insult", "threat")


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A classifier with any number of labels a text."""
    folder = tmp_path_factory.mktemp("several")
    path = tiny_tasks.checkpoint(folder, labels=NAMES).path
    config = json.loads((folder / "config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (folder / "config.json").write_text(json.dumps(config))
    return path


def _rows(several):
    """Return texts, 0 or 1 for each label, and what plain transformers says of each text alone."""
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, draw.integers(2, 9))) for _ in range(30)]
    return texts, draw.integers(0, 2, (30, 3)), _alone(several, texts) > 0


def _list(path, texts, labels):
    named = [[NAMES[k] for k in np.flatnonzero(row)] for row in labels]
    lines = [json.dumps({"text": text, "label": row}) for text, row in zip(texts, named, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def _columns(path, texts, labels):
    rows = [(text, *row) for text, row in zip(texts, labels.tolist(), strict=True)]
    return _csv(path.with_suffix(".csv"), rows, ("text", *NAMES))


def _encoded(path, texts, labels):
    rows = [(text, json.dumps(row)) for text, row in zip(texts, labels.tolist(), strict=True)]
    return _csv(path.with_suffix(".csv"), rows)


@pytest.mark.parametrize("write", [_list, _columns, _encoded])
def test_several_labels_a_text_are_each_a_decision(write, several, tmp_path, records):
    texts, labels, said = _rows(several)
    found = records(several, write(tmp_path / "own.jsonl", texts, labels))["dense"].metrics
    meant = labels > 0
    assert found["acc"]["value"] == pytest.approx((said == meant).all(1).mean())
    right = (said & meant).sum()
    assert found["f1"]["value"] == pytest.approx(2 * right / (said.sum() + meant.sum()))
    assert 0 < found["acc"]["value"] < 1


def test_methods_learn_from_several_labels_by_their_own_loss(several, tmp_path):
    texts, labels, _ = _rows(several)
    rows = [
        (text, *row, "train" if k < 20 else "test")
        for k, (text, row) in enumerate(zip(texts, labels.tolist(), strict=True))
    ]
    task = _csv(tmp_path / "own.csv", rows, ("text", *NAMES, "split"))
    bench = Bench(several, task, Settings())
    (batch,) = bench.calibration()
    loss = bench.model(**batch).loss
    by_hand = {text: np.array(row) for text, row in zip(texts, labels.tolist(), strict=True)}
    learnt = [doc["text"] for doc in bench.prepared.calibration_documents()]
    logits = torch.tensor(_alone(several, learnt))
    wanted = torch.tensor(np.stack([by_hand[text] for text in learnt])).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [("a", 1)],
            r"line 2: label '1' is no list: the model is multi-label \(config\.json: problem_type\)",
        ),
        (
            [("a", '["toxic"]'), ("b", '["toxik"]')],
            r"line 3: label 'toxik' is none of .*Did you mean toxic\?",
        ),
        ([("a", "[0, 1]")], r"line 2: 2 labels of 0 and 1, the model has 3"),
        ([("a", "[2, 1, 0]")], r"line 2: label 2 is none of toxic, insult, threat, nor 0 or 1 for each"),
        ([("a", "[toxic]")], r"line 2: label '\[toxic\]' is no list"),
    ],
)
def test_a_mistake_in_several_labels_is_named_with_its_row(rows, told, several, tmp_path, records):
    with pytest.raises(UserError, match=told):
        records(several, _csv(tmp_path / "own.csv", rows))


def test_a_head_is_not_measured_as_what_its_config_says_it_is_not(several, bert, tmp_path, records):
    checkpoint = Checkpoint("several", several, "folder")
    with pytest.raises(Misfit, match=r"is a multi-label one \(config\.json: problem_type: multi_label"):
        lm_eval.prepare("pocket-sentiment", checkpoint, Settings(limit=4))
    folder = tiny_tasks.checkpoint(tmp_path / "numbers").path
    config = json.loads((tmp_path / "numbers" / "config.json").read_text())
    (tmp_path / "numbers" / "config.json").write_text(json.dumps(config | {"problem_type": "regression"}))
    with pytest.raises(Misfit, match=r"gives 2 numbers \(config\.json: problem_type: regression\)"):
        records(folder, _csv(tmp_path / "own.csv", [("w1", 0), ("w2", 1)]))


@pytest.mark.parametrize("values", [[""], ",", ["prune80", ""], [" , "]])
def test_an_empty_name_is_a_mistake(values):
    with pytest.raises(UserError, match="holds no name: give one, or leave its option out"):
        Request.of("bert", values)
    assert split("") == () and split(["a,b,", "c"]) == ("a", "b", "c") and split([]) == ()


def test_heads_are_removed_at_random_where_there_is_nothing_to_learn_from(bert, tmp_path, records, capsys):
    from attnbench.cli.main import main

    task = _csv(tmp_path / "own.csv", zip(TEXTS, [0, 1] * 3, strict=True))
    found = records(bert, task, "heads50:random,heads50:gradient,heads50:entropy", repeats=1)
    status = {name.partition(":seed")[0]: item.status for name, item in found.items()}
    assert status["heads50:random"] == "measured"
    assert status["heads50:gradient"] == status["heads50:entropy"] == "not applicable"
    assert "names no calibration split" in found["heads50:gradient"].error
    where = ["--models", bert, "--tasks", task, "--records", str(tmp_path / "looks")]
    assert main(["heads", *where, "--by", "random,entropy", "--output", str(tmp_path / "heads")]) == 0
    told = capsys.readouterr()
    assert "random" in told.out and "names no calibration split" in told.out + told.err


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_what_reads_texts_alone_learns_from_a_file_without_labels(ending, bert, tmp_path, records):
    texts = [f"{text} w40" for text in TEXTS]
    task = _csv(tmp_path / "own.csv", zip(TEXTS, [0, 1] * 3, strict=True))
    labelled = _csv(tmp_path / "labelled.csv", zip(texts, [0, 1] * 3, strict=True))
    bare = tmp_path / f"bare.{ending}"
    lines = ["text", *texts] if ending == "csv" else [json.dumps({"text": text}) for text in texts]
    bare.write_text("\n".join(lines) + "\n")
    with_labels = records(bert, task, "heads50:l2", calibration=labelled)["heads50:l2"]
    found = records(bert, task, "heads50:l2,heads50:gradient", calibration=str(bare), replace=True)
    assert found["heads50:l2"].status == "measured"
    assert found["heads50:l2"].fitted == with_labels.fitted
    assert found["heads50:gradient"].status == "not applicable"
    assert "needs labels" in found["heads50:gradient"].error
    with pytest.raises(UserError, match=r"line 1: no (column )?'label'"):
        records(bert, str(bare))


def test_a_row_without_the_label_that_others_have_is_named(bert, tmp_path, records):
    task = _csv(tmp_path / "own.csv", zip(TEXTS, [0, 1] * 3, strict=True))
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text(json.dumps({"text": "a", "label": 1}) + "\n" + json.dumps({"text": "b"}) + "\n")
    with pytest.raises(UserError, match=r"mixed\.jsonl, line 2: no 'label', which other rows have"):
        records(bert, task, "heads50:l2", calibration=str(mixed))


def test_a_long_calibration_text_is_named(bert, tmp_path, records):
    rows = [("w1 w2", 0, "test"), ("w3", 1, "test"), (" ".join(WORDS[:30]), 1, "train"), ("w5", 0, "train")]
    task = _csv(tmp_path / "own.csv", rows, ("text", "label", "split"))
    found = records(bert, task, "heads50:gradient")
    assert found["dense"].status == "measured"
    assert re.search(
        r"calibration text 'w0 w1 .*': 1 of 2 inputs .* over 24 tokens", found["heads50:gradient"].error
    )
    assert "--max-length 24" in found["heads50:gradient"].error
    assert (
        records(bert, task, "heads50:gradient", max_length=20, replace=True)["heads50:gradient"].status
        == "measured"
    )


LABELS = """
def texts(split):
    return [{"text": f"w{k} w3", "label": k % 2 if k != BAD else VALUE} for k in range(8)]

def learnt(split):
    if split == "validation":
        return [{"text": f"w{k}", "label": k % 2} for k in range(8)]
    return texts(split)
"""
CLASSIFY = {
    "class": "!function attnbench.backends.classification.Classify",
    "custom_dataset": "!function made_up.texts", "validation_split": "validation",
    "doc_to_text": "text", "doc_to_target": "label",
    "doc_to_choice": "['no', 'yes']", "metric_list": "[{metric: acc}]",
    "metadata": "{calibration: {split: train, samples: 8}}",
}  # fmt: skip


@pytest.mark.parametrize("value", ["-1", "2", "'maybe'", "None", "1.5", "[1]", "True"])
def test_a_label_that_the_task_does_not_have_is_named_with_its_row(value, bert, tmp_path, records):
    data = LABELS.replace("BAD", "5").replace("VALUE", value)
    checkpoint = Checkpoint("bert", bert, "folder")
    folder = tiny_tasks.write(tmp_path, data, CLASSIFY)
    with pytest.raises(UserError, match=r"document 5: task 'made' has labels no, yes; a document has"):
        lm_eval.prepare("made", checkpoint, Settings(include_path=folder))
    tiny_tasks.write(tmp_path, data, CLASSIFY | {"custom_dataset": "!function made_up.learnt"})
    found = records(bert, str(tmp_path / "made.yaml"), "heads50:gradient")
    assert found["dense"].status == "measured"
    if value != "None":  # a text without a label is one to learn from for others
        assert "calibration text 'w5 w3': task 'made' has labels" in found["heads50:gradient"].error


@pytest.mark.parametrize("label", ["9" * 5000, "x" * 100_000, "²", "1_0"])
def test_a_label_of_any_length_is_refused_in_a_short_line(label, bert, tmp_path, records):
    task = _csv(tmp_path / "own.csv", [("w1", 0), ("w2", label)])
    with pytest.raises(
        UserError, match=r"own\.csv, line 3: label .* is none of no, yes, nor a number"
    ) as told:
        records(bert, task)
    assert len(str(told.value)) < 400 + len(str(tmp_path))


QUESTIONS = """
def questions(split):
    for k in range(8) if split == "validation" else range(8, 16):
        context = " ".join(f"w{(3 * k + j) % 40}" for j in range(9))
        empty = k in (dict(EMPTY)).get(split, ())
        found = {"text": [], "answer_start": []} if empty else {"text": [context[:2]], "answer_start": [0]}
        yield {"question": f"w{k} w2", "context": context, "answers": found}
"""
SPAN = {
    "class": "!function attnbench.backends.spans.Span", "custom_dataset": "!function made_up.questions",
    "validation_split": "validation", "metric_list": "[{metric: em}, {metric: f1}]",
    "metadata": "{window: {max_seq_length: 20, doc_stride: 4, max_answer_length: 5},"
    " calibration: {split: train, samples: 8}}",
}  # fmt: skip


def test_a_question_without_an_answer_is_named_or_not_learnt_from(tmp_path):
    checkpoint = tiny_tasks.checkpoint(tmp_path / "m", head="QuestionAnswering")
    data = QUESTIONS.replace("EMPTY", "{'validation': (3, 5)}")
    folder = tiny_tasks.write(tmp_path, data, SPAN)
    with pytest.raises(UserError, match=r"document 3 of task 'made' has no right answer, .* process_docs"):
        lm_eval.prepare("made", checkpoint, Settings(include_path=folder))
    tiny_tasks.write(tmp_path, QUESTIONS.replace("EMPTY", "{'train': (8, 9, 14)}"), SPAN)
    prepared = lm_eval.prepare("made", checkpoint, Settings(include_path=folder))
    learnt = sum(len(batch["input_ids"]) for batch in prepared.calibration())
    assert learnt == 5 and len(prepared.calibration_documents()) == 8


def test_a_tokenizer_that_does_not_say_where_its_tokens_stand_is_named(tmp_path):
    checkpoint = tiny_tasks.checkpoint(tmp_path / "m", head="QuestionAnswering")
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "w", *"0123456789"])
    )
    slow = transformers.BertJapaneseTokenizer(
        str(tmp_path / "vocab.txt"), word_tokenizer_type="basic", subword_tokenizer_type="character"
    )
    for file in (tmp_path / "m").glob("tokenizer*"):
        file.unlink()
    slow.save_pretrained(tmp_path / "m")
    folder = tiny_tasks.write(tmp_path, QUESTIONS.replace("EMPTY", "{}"), SPAN)
    with pytest.raises(UserError, match="a BertJapaneseTokenizer, is in Python: it does not say where"):
        lm_eval.prepare("made", checkpoint, Settings(include_path=folder))


def test_checkpoints_pruned_under_transformers_4_are_named(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "m"
    tiny_tasks.checkpoint(folder)
    weights, keep = load_file(folder / "model.safetensors"), slice(0, 8)
    for part in ("query", "key", "value"):
        for kind in ("weight", "bias"):
            name = f"bert.encoder.layer.1.attention.self.{part}.{kind}"
            weights[name] = weights[name][keep].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    checkpoint = Checkpoint("m", str(folder), "folder")
    with pytest.raises(UserError, match=r"is of shape \(8.*\) in its weights, \(16.*\) by its config\.json"):
        checkpoint.load("classification")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pruned_heads": {"1": [1]}}))
    with pytest.raises(UserError, match=r"pruned from it under transformers 4 .*heads:fixed:off=1\.1"):
        checkpoint.load("classification")


def test_queries_and_one_shared_key_in_one_map_are_not_cut(tmp_path):
    config = {"multi_query": True, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 32}
    model = _model("GPTBigCodeForCausalLM", **config)
    with (
        pytest.raises(NotApplicable, match=r"one map of unequal parts \(multi-query attention\)"),
        attnbench.realize(model, "heads:fixed:off=0.1"),
    ):
        pass


PAGES = {
    "output_type": "loglikelihood_rolling", "custom_dataset": "!function made_up.pages", "num_fewshot": 0,
    "validation_split": "validation", "doc_to_text": '""', "doc_to_target": "page",
    "metric_list": "[{metric: word_perplexity}]",
}  # fmt: skip


@pytest.mark.parametrize("length", [14, 40])
def test_a_decoder_with_fewer_positions_than_its_config_says_is_refused_or_fits(length, tmp_path):
    config = {"is_decoder": True, "max_position_embeddings": 20, "pad_token_id": 1, **LAYERS}
    folder = _saved(tmp_path / "m", "RobertaForCausalLM", frame="$A", **config)
    page = " ".join(WORDS[:length])
    data = (
        "from datasets import Dataset, DatasetDict\n"
        f"PAGE = {page!r}\n"
        "def pages(**ignored):\n    return DatasetDict({'validation': Dataset.from_list([{'page': PAGE}])})\n"
    )
    bench = Bench(folder, tiny_tasks.write(tmp_path, data, PAGES) + "/made.yaml", Settings())
    if length == 14:
        assert bench.prepared.evaluate(bench.model).metrics
        return
    with pytest.raises(UserError, match=r"document 0 of task 'made': .* over 18 tokens, what the"):
        _ = bench.model


def test_a_setting_that_cuts_is_kept_apart_and_given_again(bert, tmp_path, records):
    from attnbench.boards.page.document import reproduce
    from attnbench.statistics.same_samples import other_samples

    task = _csv(tmp_path / "own.csv", zip(TEXTS, [0, 1] * 3, strict=True))
    whole, cut = records(bert, task)["dense"], records(bert, task, max_length=4, replace=True)["dense"]
    assert "has texts cut to 4 tokens, dense to none" in (other_samples(cut, whole) or "")
    assert other_samples(cut, cut) is None
    body = {"cell": cut.cell, "settings": cut.settings, "provenance": cut.provenance}
    assert "--max-length 4" in reproduce(body)


def test_a_suite_holds_whole_texts(tmp_path, capsys):
    from attnbench.cli.main import main

    text = "title = 't'\nmethods = ['prune80']\n[[part]]\nmodels = ['pocket-bert']\n"
    (tmp_path / "s.toml").write_text(text)
    assert main(["run", str(tmp_path / "s.toml"), "--max-length", "9"]) == 2
    assert "--max-length: a suite holds its own unless --records keeps" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--models", "--methods", "--tasks"])
def test_an_option_without_a_name_is_a_mistake_on_the_command_line(option, tmp_path, capsys):
    from attnbench.cli.main import main

    asked = {"--models": "bert", "--methods": "prune80", "--tasks": "pocket-sentiment", option: ""}
    words = [word for pair in asked.items() for word in pair]
    assert main(["run", *words, "--records", str(tmp_path / "records"), "--limit", "2"]) == 2
    assert capsys.readouterr().err == "attnbench: '' holds no name: give one, or leave its option out.\n"
    assert not (tmp_path / "records").exists()


def test_looking_for_limits_leaves_a_model_as_it_was():
    model = copy.deepcopy(architectures.tiny("bigbird-sparse"))  # a short text switches it to full attention
    assert limits.of(model).vocabulary == model.get_input_embeddings().num_embeddings
    assert model.bert.attention_type == "block_sparse"
