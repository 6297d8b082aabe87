"""CoNLL-U: what is read, what is refused and where; words and the tokens that they are split into."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnbench import UserError
from attnbench_plugins.studies.patterns import conllu, relations, words


def line(number, form, head="0", relation="root", misc="_"):
    return "\t".join([str(number), form, "_", "_", "_", "_", str(head), relation, "_", misc])


# I don't know. -- an empty node, a multi-word token, a subtype, no space before the stop
SENTENCE = "\n".join([
    "# sent_id = 1",
    line(1, "I", 4, "nsubj:outer"),
    line("2-3", "don't", "_", "_"),
    line(2, "do", 4, "aux"),
    line(3, "n't", 4, "advmod"),
    line(4, "know", 0, "root", "SpaceAfter=No"),
    line("4.1", "what", "_", "_"),
    line(5, ".", 4, "punct"),
])  # fmt: skip


def written(tmp_path, text, name="bank.conllu"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_sentence_is_read(tmp_path):
    path = written(tmp_path, SENTENCE + "\n\n" + line(1, "Go", 0) + "\n")
    first, second = conllu.read(path)
    assert first.text == "I don't know." and second.text == "Go"
    assert [word.form for word in first.words] == ["I", "do", "n't", "know", "."]
    assert [word.head for word in first.words] == [4, 4, 4, 0, 4]
    assert [first.text[slice(*word.span)] for word in first.words] == ["I", "do", "n't", "know", "."]
    assert first.place == f"{path}:2" and second.place == f"{path}:10"


@pytest.mark.parametrize("change", ["\r\n", "\ufeff"])
def test_what_editors_add_is_no_matter(change, tmp_path):
    plain = conllu.read(written(tmp_path, SENTENCE))
    text = change + SENTENCE if change == "\ufeff" else SENTENCE.replace("\n", change)
    assert [each.text for each in conllu.read(written(tmp_path, text))] == [each.text for each in plain]


def test_words_that_do_not_spell_their_token_have_no_span(tmp_path):
    text = "\n".join([line("1-2", "du", "_", "_"), line(1, "de", 3), line(2, "le", 3), line(3, "roi", 0)])
    (sentence,) = conllu.read(written(tmp_path, text))
    assert sentence.text == "du roi" and [word.span for word in sentence.words] == [None, None, (3, 6)]


BAD = {  # what is in the file -> the line, and what is said of it
    "columns": ("1\tI\t_\n", 1, "has 3 columns between tabs, not 10"),
    "spaces for tabs": (SENTENCE + "\n\n1 Go go VERB _ _ 0 root _ _\n", 10, "has 1 columns"),
    "an empty column": (line(1, "", 0), 1, "leaves column 2 empty, where _ has to stand"),
    "no number": (line("one", "I"), 1, "begins with 'one', which is no number of a token"),
    "a number left out": (line(1, "I", 0) + "\n" + line(3, "go", 1), 2, "is word 3 after word 1"),
    "no head": (line(1, "I", "_"), 1, "has the head '_', which is no word's number"),
    "a head too far": (line(1, "I", 0) + "\n" + line(2, "go", 7), 2, "says that 'go' depends on word 7 of 2"),
    "a token backwards": (line("2-1", "am", "_"), 1, "is a token of words 2-1 after word 0"),
    "a token twice": ("\n".join([line("1-2", "am", "_"), line("1-2", "am", "_")]), 2, "is a token of words"),
    "a token without end": ("\n".join([line("1-2", "am", "_"), line(1, "a", 0)]), 2, "ends a sentence"),
    "an empty node": (line(1, "I", 0) + "\n" + line("1.2", "x", "_"), 2, "numbers an empty node 1.2"),
    "bytes": (line(1, "I").encode() + b"\n# \xff\n", 2, "is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_named(name, tmp_path):
    text, number, said = BAD[name]
    path = written(tmp_path, text)
    with pytest.raises(UserError) as error:
        conllu.read(path)
    assert f"treebank {path}:{number}: the line {said}" in str(error.value)


def test_no_file_and_no_sentence(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        conllu.read(tmp_path / "none.conllu")
    with pytest.raises(UserError, match="Is a directory"):
        conllu.read(tmp_path)
    with pytest.raises(UserError, match="no sentence in it"):
        conllu.read(written(tmp_path, "# only words about it\n\n"))


@given(st.binary(max_size=120))
def test_any_bytes_are_read_or_refused(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("bank") / "bank.conllu"
    path.write_bytes(raw)
    try:
        assert conllu.read(path)
    except UserError as error:
        assert str(path) in str(error)


def test_the_real_treebank_is_read_as_its_text_comments_say(shared):
    path = shared / "treebank" / "en_ewt-ud-dev.conllu"
    found = conllu.read(path)
    texts = [
        each.removeprefix("# text = ")
        for each in path.read_text(encoding="utf-8").splitlines()
        if each.startswith("# text = ")
    ]
    assert [each.text for each in found] == texts and len(found) == 2001
    assert sum(len(each.words) for each in found) == sum(
        each.partition("\t")[0].isdecimal() for each in path.read_text(encoding="utf-8").splitlines()
    )


ALIGNED = {  # text, words, tokens -> the tokens of each word
    "whole": ("a bc", [(0, 1), (2, 4)], [(0, 0), (0, 1), (2, 4), (0, 0)], [(1,), (2,)]),
    "split": ("a bcd", [(0, 1), (2, 5)], [(0, 1), (2, 3), (3, 5)], [(0,), (1, 2)]),
    "a space at its front": ("a bc", [(0, 1), (2, 4)], [(0, 1), (1, 4)], [(0,), (1,)]),
    "bytes of one letter": ("a é", [(0, 1), (2, 3)], [(0, 1), (1, 3), (2, 3)], [(0,), (1, 2)]),
    "over two words": ("don't", [(0, 2), (2, 5)], [(0, 3), (3, 4), (4, 5)], [(), ()]),
    "one word clear of it": ("don't go", [(0, 2), (2, 5), (6, 8)], [(0, 5), (6, 8)], [(), (), (1,)]),
    "not spelled": ("du roi", [None, None, (3, 6)], [(0, 2), (3, 6)], [(), (), (1,)]),
    "no token": ("a b", [(0, 1), (2, 3)], [(0, 1)], [(0,), ()]),
    "a space alone": ("a b", [(0, 1), (2, 3)], [(0, 1), (1, 2), (2, 3)], [(0,), (2,)]),
}  # fmt: skip


@pytest.mark.parametrize("name", ALIGNED)
def test_words_and_tokens(name):
    text, spans, offsets, expected = ALIGNED[name]
    assert words.aligned(text, spans, offsets) == expected


def test_attention_between_words_is_summed_to_and_averaged_from():
    weights = np.random.default_rng(0).dirichlet(np.ones(6), size=(3, 6))  # (heads, queries, keys)
    tokens = [(1,), (2, 3), (), (4,)]
    sums, means = words.sums_and_means(tokens, 6)
    found = words.between_words(torch.from_numpy(weights), means, sums).numpy()
    expected = np.zeros((3, 4, 4))
    for head in range(3):
        for a, mine in enumerate(tokens):
            for b, other in enumerate(tokens):
                rows = [sum(weights[head, q, k] for k in other) for q in mine]
                expected[head, a, b] = np.mean(rows) if rows else 0
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_arcs_of_a_sentence(tmp_path):
    (sentence,) = conllu.read(written(tmp_path, SENTENCE))
    tokens = [(1,), (2,), (3, 4), (5,), (6,)]
    both = relations.arcs(sentence.words, tokens, causal=False)
    assert both == [
        (("nsubj", "dependent-head"), 0, 3),
        (("nsubj", "head-dependent"), 3, 0),
        (("advmod", "dependent-head"), 2, 3),
        (("advmod", "head-dependent"), 3, 2),
    ]
    assert relations.arcs(sentence.words, tokens, causal=True) == both[1::2]
    assert relations.arcs(sentence.words, [*tokens[:3], (), (6,)], causal=False) == []
    assert relations.best_offsets([both, both[2:], both[2:]]) == {
        ("nsubj", "dependent-head"): 3,
        ("nsubj", "head-dependent"): -3,
        ("advmod", "dependent-head"): 1,
        ("advmod", "head-dependent"): -1,
    }
