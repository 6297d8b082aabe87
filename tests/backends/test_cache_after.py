"""Caches cut after a task's context, or after its question, against a plain model with a cache cut there."""

from __future__ import annotations

from types import SimpleNamespace

import asked_contexts
import pytest
import tiny_causal
import tiny_tasks
import torch
from closeness import close
from slow_caches import continued

import attnbench
from attnbench.backends import lm_eval
from attnbench.backends.causal.borders import Borders
from attnbench.engine.serving.attention import apply
from attnbench.errors import NotApplicable
from attnbench.inputs.prompting import Prompting
from attnbench.inputs.settings import Settings
from attnbench.records.record import read_all

METHOD, HEADS, LAYERS = "evict50:streamingllm", 2, 2
CASES = {
    "plain": ({}, {}, 64),
    "after examples": ({}, {"num_fewshot": 2}, 128),
    "in a chat": ({}, {"apply_chat_template": True}, 64),
    "across a border": ({"doc_to_text": '"{{passage}}{{ask}}"'}, {}, 64),
    "twice": ({"doc_to_text": '"{{passage}} w1 {{passage}} {{ask}}"'}, {}, 96),
    "cut on the left": ({"doc_to_text": '"w2 w3 w4 w5 w6 {{passage}} {{ask}}"'}, {}, 20),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_tasks.built_once(tmp_path_factory, tiny_causal.build)


def prepared_for(folder, chosen, ending, **prompting):
    settings = Settings(include_path=folder, prompting=Prompting(**prompting))
    prepared = lm_eval.prepare(f"asked{ending}", chosen, settings)
    model = chosen.load(prepared.head).double()
    prepared.check(model)
    return prepared, model


def ending_of(text, doc, ending):
    """Count the words of a request that are its prompt, of which each is a token."""
    if ending == "@question":
        return len(text.split()) - 1
    before, _, after = text.rpartition(doc["passage"])
    return len((before + doc["passage"]).split()) - (not after[0].isspace())


@pytest.mark.parametrize("ending", ["", "@context", "@question"])
@pytest.mark.parametrize("case", CASES)
def test_likelihoods_are_those_of_a_cache_cut_there(case, ending, checkpoint, tmp_path):
    changes, prompting, positions = CASES[case]
    folder = asked_contexts.write(tmp_path, **changes)
    chosen = checkpoint("llama", positions, chat_template=asked_contexts.CHAT)
    prepared, model = prepared_for(folder, chosen, ending, **prompting)
    with apply(model, METHOD) as applied:
        prepared.evaluate(model, batch_size=5)
    assert applied.cut == applied.scored > 0
    tokenizer = chosen.tokenizer()
    for instance in prepared.task.instances:
        text, rest = instance.args
        ids, target = (tokenizer(part)["input_ids"] for part in (text, rest))
        lost = max(0, len(ids) + len(target) - 1 - positions)
        n = ending_of(text, instance.doc, ending) - lost
        whole = torch.tensor([[*ids[lost:], *target[:-1]]])
        logits = continued(model, whole, n, [asked_contexts.first_and_last(n, HEADS)] * LAYERS)[0]
        expected = logits.log_softmax(-1)[-len(target) :][range(len(target)), target].sum()
        close(torch.tensor(instance.resps[0][0]), expected, layers=2, says=text)


@pytest.mark.parametrize("ending", ["", "@question"])
@pytest.mark.parametrize("case", ["plain", "after examples", "cut on the left"])
def test_texts_are_written_from_a_cache_cut_there(case, ending, checkpoint, tmp_path):
    changes, prompting, positions = CASES[case]
    folder = asked_contexts.write(tmp_path, "written", **changes)
    chosen = checkpoint("llama", positions, chat_template=asked_contexts.CHAT)
    prepared, model = prepared_for(folder, chosen, ending, **prompting)
    with apply(model, METHOD):
        prepared.evaluate(model, batch_size=4)
    tokenizer = chosen.tokenizer()
    for instance in prepared.task.instances:
        ids = tokenizer(instance.args[0])["input_ids"]
        lost = max(0, len(ids) - (positions - 5))
        n = ending_of(instance.args[0], instance.doc, ending) - lost
        ids, own = ids[lost:], []
        while len(own) < 5 and tokenizer.eos_token_id not in own:
            kept = [asked_contexts.first_and_last(n, HEADS)] * LAYERS
            own.append(int(continued(model, torch.tensor([[*ids, *own]]), n, kept)[0, -1].argmax()))
        expected = tokenizer.decode(own, skip_special_tokens=True)
        assert instance.resps[0].split() == expected.partition("w37")[0].split()


def test_where_a_cache_is_cut_changes_answers_and_dense_has_none(checkpoint, tmp_path):
    folder, found = asked_contexts.write(tmp_path), {}
    for ending in ("", "@question"):
        prepared, model = prepared_for(folder, checkpoint("llama", 64), ending)
        dense = prepared.evaluate(model).outputs
        with apply(model, METHOD):
            found[ending] = (dense, prepared.evaluate(model).outputs)
    (first, agnostic), (second, aware) = found.values()
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert all(abs(a - b).max() > 1e-6 for a, b in zip(agnostic, aware, strict=True))


@pytest.mark.parametrize("name", ["needles_64", "two-questions_64"])
def test_two_questions_share_the_cache_of_one_context(name, checkpoint, tmp_path):
    """Every request of a document has the same prompt: its context, whatever is asked of it."""
    chosen = checkpoint("llama", 256)
    prepared = lm_eval.prepare(name, chosen, Settings(limit=2))
    lm, asked = prepared._lm, prepared.task.instances
    rows = lm.ends.of_rows(asked, [rows[0] for rows in lm.inputs.rows(asked)])
    prompts = {}
    for instance, row in zip(asked, rows, strict=True):
        assert len(instance.doc["context"].split()) >= row.prompt > 0
        prompts.setdefault(instance.doc_id, set()).add(row.ids[: row.prompt])
    assert len(asked) == len(prompts) * (1 + name.startswith("two")) and {*map(len, prompts.values())} == {1}


def test_a_record_of_two_questions_is_of_samples(checkpoint, tmp_path):
    """A context and both of its questions are one sample, also of what is measured beside the score."""
    place = str(tmp_path / "records")
    run = attnbench.run(
        checkpoint("llama", 512).path, "evict50:knorm", "two-questions_200", limit=12, records=place
    )
    assert [item.error for item in run.records] == [None] * 3
    for item in read_all(place):
        told = [
            len(array) for name, array in item.scores.items() if not name.startswith(("likely", "outputs"))
        ]
        assert set(told) == {12}
        assert item.cell["method"] == "dense" or "fidelity answers-changed" in item.scores
    assert len(list(read_all(place))) == 3


def test_short_texts_have_no_accuracy_in_the_middle(checkpoint, tmp_path):
    """All that a short text tells stands in its first 4 or last 64 tokens: nothing is left to be right of."""
    place, chosen = str(tmp_path / "records"), checkpoint("llama", 256)
    item = attnbench.run(chosen.path, (), "needle_64", limit=3, records=place).records[0]
    assert item.error is None and [*item.metrics] == ["acc", "logp"]
    item = attnbench.run(chosen.path, (), "needle_200", limit=12, records=place).records[0]
    assert [*item.metrics] == ["acc", "logp", "acc_middle"]


# the context, the question, and the request, where a bar stands for the border that is looked for
BORDERS = {
    "once": ("Rome is old.", "Is it?", "Rome is old.| Is it?"),
    "in its own question": ("Rome", "Is Rome old?", "Rome|\nIs Rome old?"),
    "begins its own question": ("Rome", "Rome, is it old?", "Rome|\nRome, is it old?"),
    "in what leads to the answer": ("Rome", "Is it old?", "Rome| Is it old? Say of Rome:"),
    "of an example too": ("Rome", "Is Rome old?", "Rome. Is it? Yes.\n\nRome|. Is Rome old?"),
    "twice before its question": ("Rome", "Is it?", "Rome Rome| Is it?"),
    "with the question in it": ("Is it? No.", "Is it?", "Is it? No.| Is it?"),
    "only in its question": ("Rome", "Is Rome old?", "Is Rome old?"),
    "after its question": ("Rome is old.", "Is it?", "Is it? Rome is old."),
    "with no other question": ("Is it? No.", "Is it?", "Is it? No."),
    "nowhere": ("Rome", "Is it?", "Paris. Is it?"),
}


@pytest.mark.parametrize("case", BORDERS)
def test_a_context_ends_where_its_question_comes_after_it(case):
    context, question, marked = BORDERS[case]
    doc = {"passage": context, "ask": question}
    task = SimpleNamespace(config=SimpleNamespace(metadata=asked_contexts.MARKED), eval_docs=[doc])
    file = SimpleNamespace(ending=SimpleNamespace(after=False), plain="t", name="t")
    before, bar, after = marked.partition("|")
    request = SimpleNamespace(task_name="t", args=(before + after,), doc=doc, doc_id=0)
    find = Borders(file, {"t": task})
    if bar:
        assert find(request) == len(before)
    else:
        with pytest.raises(NotApplicable, match=r"is not in its request|does not come after"):
            find(request)


def test_a_cache_that_is_cut_again_is_for_texts_that_are_written(checkpoint, tmp_path):
    chosen, found = checkpoint("llama", 64), []
    prepared, model = prepared_for(asked_contexts.write(tmp_path, "written"), chosen, "")
    for method in (METHOD, f"{METHOD}:every=2"):
        with apply(model, method) as applied:
            prepared.evaluate(model, batch_size=4)
        assert applied.cut == applied.scored > 0
        found.append([instance.resps[0] for instance in prepared.task.instances])
    assert found[0] != found[1]
    prepared, model = prepared_for(asked_contexts.write(tmp_path), chosen, "")
    with apply(model, f"{METHOD}:every=2"), pytest.raises(NotApplicable, match="as likelihoods are scored"):
        prepared.evaluate(model)
