"""What a language model learns from: any texts, of a dataset or of a file, as many as were asked for."""

from __future__ import annotations

import json

import pytest
import tiny_causal
import tiny_tasks

from attnbench.backends import lm_eval
from attnbench.backends.causal import texts
from attnbench.cli.main import main
from attnbench.errors import UserError
from attnbench.inputs.settings import Settings

TEXTS = ["w1 w2 w3", "w4 w5", "w6 w7 w8 w9\nw10"]
FILES = {
    "a.txt": "\n\n".join(TEXTS) + "\n \n\n",
    "a.jsonl": "\n".join(json.dumps({"other": 1, "text": text}) for text in TEXTS),
    "a.csv": 'id,content\n1,w1 w2 w3\n2,w4 w5\n3,"w6 w7 w8 w9\nw10"\n',
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_tasks.built_once(tmp_path_factory, tiny_causal.build)


@pytest.mark.parametrize("name", FILES)
def test_texts_of_a_file_are_learnt_from(name, checkpoint, tmp_path):
    file = tmp_path / name
    file.write_text(FILES[name])
    assert texts.of(str(file)) == TEXTS
    folder = tiny_causal.write(tmp_path, "choices")
    chosen = checkpoint("llama")
    prepared = lm_eval.prepare("made", chosen, Settings(include_path=folder, calibration=str(file)))
    encode, batches = chosen.tokenizer(), prepared.calibration(batch_size=1)
    # a text begins with bos, and every token of it is to be predicted
    read = sorted(
        [t for t, seen in zip(b["input_ids"][0].tolist(), b["attention_mask"][0], strict=True) if seen]
        for b in batches
    )
    assert read == sorted([1, *encode(text)["input_ids"]] for text in TEXTS)


@pytest.mark.parametrize(
    "settings, count",
    [
        ({}, 3),
        ({"calibration_samples": 2}, 2),
        ({"calibration_samples": 9}, 3),
        ({"calibration_tokens": 1}, 1),
    ],
)
def test_as_many_are_taken_as_were_asked_for(settings, count, checkpoint, tmp_path):
    file = tmp_path / "a.txt"
    file.write_text(FILES["a.txt"])
    folder = tiny_causal.write(tmp_path, "choices")
    chosen = Settings(include_path=folder, calibration=str(file), **settings)
    prepared = lm_eval.prepare("made", checkpoint("llama"), chosen)
    assert len(prepared.calibration(batch_size=1)) == count
    assert {"calibration": "a.txt", **settings}.items() <= chosen.recorded().items()


def test_a_long_text_is_read_in_windows_no_longer_than_what_is_evaluated(checkpoint, tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    file.write_text(" ".join(f"w{k % 40}" for k in range(29)))
    folder = tiny_causal.write(tmp_path, "choices")
    settings = Settings(include_path=folder, calibration=str(file))
    whole = lm_eval.prepare("made", checkpoint("llama"), settings)
    assert [batch["input_ids"].shape[1] for batch in whole.calibration(batch_size=1)] == [30]
    monkeypatch.setattr("attnbench.backends.causal.prepared.WINDOW", 1)
    cut = lm_eval.prepare("made", checkpoint("llama"), settings)
    rows = cut.extremes(checkpoint("llama").load("causal-lm"), cut.task.instances)
    evaluated = max(len(row["input_ids"][0]) for row in rows)
    batches = cut.calibration(batch_size=1)
    lengths = [batch["input_ids"].shape[1] for batch in batches]
    # the last target follows the input, so that a window has one token more than it reads
    assert 1 < max(lengths) <= evaluated + 1 < 30
    assert sum(int((batch["labels"] >= 0).sum()) for batch in batches) == 29  # each word once
    assert cut.calibration_fingerprint() != whole.calibration_fingerprint()


def test_a_batch_holds_no_more_attention_than_a_gradient_has_room_for(checkpoint, tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    file.write_text("\n\n".join(" ".join(f"w{k}" for k in range(n)) for n in (19, 9, 9, 9, 9)))
    settings = Settings(include_path=tiny_causal.write(tmp_path, "choices"), calibration=str(file))
    monkeypatch.setattr("attnbench.backends.causal.prepared.ENTRIES", 2 * 4 * 20 * 20)  # 2 layers of 4 heads
    made = lm_eval.prepare("made", checkpoint("llama"), settings).calibration(batch_size=32)
    assert sorted(tuple(batch["input_ids"].shape) for batch in made) == [(1, 20), (4, 10)]


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.txt", " \n\n", "holds no text"),
        ("a.jsonl", '{"txt": "w1"}', "line 1: no column 'text' (text, page, sentence, content): it has txt"),
        ("a.jsonl", '{"text": 3}', "line 1: text is 3, no text"),
        ("a.jsonl", '{"text": "w1"}\n{', "line 2: not JSON"),
        ("a.jsonl", "[1]", "line 1: no column 'text'"),
        ("a.csv", "label\nx\n", "line 2: no column 'text'"),
        ("a.csv", 'text\n"w1', "unexpected end of data"),
        ("gone.txt", None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_is_none_is_named_before_anything_is_measured(
    name, content, words, checkpoint, tmp_path, capsys
):
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    folder = tiny_causal.write(tmp_path, "choices")
    command = ["run", "--models", checkpoint("llama").path, "--tasks", "made", "--include-path", folder]
    command += ["--methods", "heads50:gradient", "--records", str(tmp_path / "records")]
    assert main([*command, "--calibration", str(file)]) == 2
    out, err = capsys.readouterr()
    assert words in err and "dense" not in err + out


def test_texts_alone_are_nothing_for_a_classifier(tiny_folder, tmp_path):
    file = tmp_path / "a.txt"
    file.write_text(FILES["a.txt"])
    from attnbench.inputs.models import Checkpoint

    with pytest.raises(UserError, match="holds texts alone, for language models"):
        lm_eval.prepare(
            "pocket-sentiment", Checkpoint("tiny", tiny_folder, "folder"), Settings(calibration=str(file))
        )


def test_how_many_were_learnt_from_is_part_of_the_identity(checkpoint, tmp_path, capsys):
    file = tmp_path / "a.txt"
    file.write_text(FILES["a.txt"])
    folder = tiny_causal.write(tmp_path, "choices")
    command = ["run", "--models", checkpoint("llama").path, "--tasks", "made", "--include-path", folder]
    command += ["--methods", "heads50:gradient", "--records", str(tmp_path / "records")]
    command += ["--calibration", str(file)]
    assert main([*command, "--calibration-samples", "2"]) == 0
    assert main([*command, "--calibration-samples", "3"]) == 2
    assert "calibration_samples 2, not 3" in capsys.readouterr().err


def test_tokens_are_counted_of_a_language_models_texts_alone(tiny_folder):
    from attnbench.inputs.models import Checkpoint

    with pytest.raises(UserError, match="--calibration-tokens is for language models"):
        lm_eval.prepare(
            "pocket-sentiment", Checkpoint("tiny", tiny_folder, "folder"), Settings(calibration_tokens=9)
        )
