"""Two recorded methods against each other."""

from __future__ import annotations

import numpy as np
import pytest
from sample_records import faithful, missing, record, right
from scipy import stats

from attnbench.cli.main import main
from attnbench.errors import UserError
from attnbench.records import record as records
from attnbench.statistics import against_dense, pairs
from attnbench.statistics.aggregates import by_sample
from attnbench.statistics.flips import tango_each


def test_a_difference_by_hand_and_by_scipy():
    a, b = right(100, 10), right(100, 16, start=4)
    found = pairs.difference([record("prune80", acc=a)], [record("prune95", acc=b)])
    won, lost = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    assert found.estimate == pytest.approx((won - lost) / 100) and (found.a, found.b) == (0.9, 0.84)
    assert found.p == pytest.approx(stats.binomtest(won, won + lost).pvalue)
    assert found.low < found.estimate < found.high and found.samples == 100
    assert found.only_a == list(range(10, 20)) and found.only_b == list(range(4))
    assert found.gain == (found.low, found.estimate, found.high)


def test_swapping_turns_the_sign():
    a, b = record("prune80", acc=right(200, 10)), record("prune95", acc=right(200, 30))
    one, other = pairs.difference([a], [b]), pairs.difference([b], [a])
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low)) and one.p == other.p
    drawn = [record(f"prune80:random:seed={k}", acc=right(200, 40 + 5 * k)) for k in range(4)]
    one, other = pairs.difference([a], drawn), pairs.difference(drawn, [a])
    assert one.estimate == pytest.approx(-other.estimate) and one.low == pytest.approx(-other.high)
    assert one.p == pytest.approx(other.p)


def test_seeds_of_two_methods_are_draws_of_their_own():
    a = [record(f"mask50:random:seed={k}", acc=right(400, 40 + 9 * k)) for k in range(5)]
    b = [record(f"prune50:random:seed={k}", acc=right(400, 80 + 9 * k)) for k in range(5)]
    found, other_order = pairs.difference(a, b), pairs.difference(a, b[::-1])
    assert found.estimate == pytest.approx(0.1) and 0.03 < found.low < 0.06 and 0.14 < found.high < 0.17
    assert found.p < 0.01 and other_order.low == pytest.approx(found.low, abs=0.01)
    f1 = [record("x:random", kind="f1", f1=np.tile([1, 1, 0, 1], (30, 1)))] * 2
    same = pairs.difference(f1, f1)
    assert same.estimate == 0 and same.low <= 0 <= same.high and same.p > 0.9


def test_all_seeds_count_where_one_side_has_more():
    few = [record(f"mask50:random:seed={k}", acc=right(400, 40 + 80 * k)) for k in range(2)]
    many = [record(f"prune50:random:seed={k}", acc=right(400, 80 + 9 * k)) for k in range(5)]
    found, turned = pairs.difference(few, many), pairs.difference(many, few)
    assert found.estimate == pytest.approx(found.a - found.b) == pytest.approx(-turned.estimate)
    assert -1 <= found.low < found.estimate < found.high <= 1
    # Welch: two draws leave one degree of freedom, however many the other side has
    widths = [pairs.difference(few * times, many).high - found.estimate for times in (1, 2)]
    assert widths[0] > 1.3 * widths[1]


@pytest.mark.parametrize("drawn", [False, True])
def test_a_comparison_with_dense_has_the_tables_interval(drawn):
    rng = np.random.default_rng(2)
    dense = record("dense", acc=right(300, 30))
    names = [f"prune80:random:seed={k}" for k in range(3)] if drawn else ["prune80"]
    ours = [record(name, acc=(rng.random(300) < 0.8).astype(float)) for name in names]
    if not drawn:
        dense = record("dense", acc=right(300, 30) * 0.5)
    others = [record("prune95", acc=rng.random(300)), record("mask90", acc=right(300, 33))]
    for beside in ([], others):
        (row,) = (
            row for row in against_dense.rows([dense, *ours, *beside]) if row.method.startswith("prune80")
        )
        found, turned = pairs.difference(ours, [dense]), pairs.difference([dense], ours)
        assert (found.low, found.high) == pytest.approx((row.low, row.high), abs=1e-12)
        assert (-turned.high, -turned.low) == pytest.approx((row.low, row.high), abs=1e-12)


def test_equal_draws_of_two_methods_leave_room():
    scores = right(100, 10)
    a, b = (
        [record(f"{m}:seed={k}", acc=scores) for k in range(3)] for m in ("mask50:random", "prune50:random")
    )
    found = pairs.difference(a, b)
    assert (
        found.estimate == 0 and found.p == 1 and -found.low == found.high == pytest.approx(0.036, abs=0.001)
    )


def test_lower_is_better_turns_the_gain():
    counts = np.full(200, 5.0)
    rng = np.random.default_rng(0)
    likelihood = -rng.gamma(9, 1, 200)
    a = record("prune80", kind="perplexity", ppl=np.stack([likelihood, counts], 1))
    b = record("prune95", kind="perplexity", ppl=np.stack([likelihood * 1.1, counts], 1))
    found = pairs.difference([a], [b])
    assert found.estimate < 0 < found.gain[0] < found.gain[1] < found.gain[2] and found.interval.endswith(
        " %"
    )


@pytest.mark.parametrize("counts", [(4, 4), (5, 2)])
def test_coverage_of_two_drawn_methods_on_the_null(counts):
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(40):
        drawn = [
            [record(f"m:seed={k}", acc=(rng.random(200) < 0.8).astype(float)) for k in range(count)]
            for count in counts
        ]
        found = pairs.difference(*drawn)
        inside += found.low <= 0 <= found.high
    assert inside >= 34


def translated(pairs_):
    """Return sacrebleu's sufficient statistics of BLEU and chrF for (hypothesis, reference) pairs."""
    import sacrebleu

    bleu, chrf = sacrebleu.BLEU(effective_order=True), sacrebleu.CHRF()
    hypotheses, references = zip(*pairs_, strict=True)
    rows = bleu._extract_corpus_statistics(hypotheses, [references])
    return (
        np.array(rows, float),
        np.array(chrf._extract_corpus_statistics(hypotheses, [references]), float),
        [bleu.sentence_score(h, [r]).score for h, r in pairs_],
        [chrf.sentence_score(h, [r]).score for h, r in pairs_],
    )


SENTENCES = [
    ("a black cat sits on the mat", "a black cat sat on the mat"), ("yes", "yes"), ("yes", "no"),
    ("the dog", "the dog runs far away"), ("a dog runs far away from it", "a dog runs far away"),
    ("one two three four five six", "one x two y three z"), ("", "nothing at all"),
]  # fmt: skip


def test_sentences_score_as_sacrebleu_scores_them():
    bleu, chrf, each_bleu, each_chrf = translated(SENTENCES)
    assert by_sample("bleu", bleu) == pytest.approx(each_bleu)
    assert by_sample("chrf", chrf) == pytest.approx(each_chrf)


def test_samples_are_listed_by_a_score_of_their_own():
    reference = "a dog runs far away from the house"
    good, long = ("a dog runs far away from it", reference), ("x y z u v w q r s t k l m n o p", reference)
    a, b, *_ = (translated([good] * 3 + [long])[0], translated([long] * 3 + [good])[0])
    found = pairs.difference([record("a", kind="bleu", bleu=a)], [record("b", kind="bleu", bleu=b)])
    assert (found.only_a, found.only_b) == ([0, 1, 2], [3])
    ours, theirs = np.array([0, 3, 1, 2, 0]), np.array([2, 3, 1, 0, 0])  # tp, fp, fn, tn, of the same labels
    for kind in ("mcc", "f1"):
        x, y = (record(m, kind=kind, x=np.eye(4)[places]) for m, places in (("a", ours), ("b", theirs)))
        found = pairs.difference([x], [y])
        assert (found.only_a, found.only_b) == ([0], [3])
    # twice the tokens at half the loss each is as likely as a whole, and likelier a token
    a, b = np.array([[-4.0, 8], [-4.0, 4]]), np.array([[-4.0, 4], [-4.0, 4]])
    found = pairs.difference(*([record(m, kind="perplexity", p=x)] for m, x in (("a", a), ("b", b))))
    assert (found.only_a, found.only_b) == ([0], [])


def test_a_sample_has_no_correlation(tmp_path, capsys):
    rng = np.random.default_rng(0)
    gold = rng.normal(size=40)
    for method, noise in (("prune80", 0.1), ("prune95", 2.0)):
        scores = np.stack([gold + noise * rng.normal(size=40), gold], 1)
        records.write(tmp_path, record(method, kind="pearson", pearson=scores))
    assert main(["compare", "prune80", "prune95", "--records", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "  no list of samples: a pearson correlation is of all of them together"
    assert len(lines) == 3 and lines[2].endswith("by a BCa bootstrap.")


def test_perplexities_of_seeds_are_averaged_as_on_the_board():
    counts = np.full(50, 5.0)
    drawn = [
        record(f"prune80:random:seed={k}", kind="perplexity", ppl=np.stack([counts * -loss, counts], 1))
        for k, loss in enumerate((1.0, 3.0))
    ]
    dense = record("dense", kind="perplexity", ppl=np.stack([-counts, counts], 1))
    found = pairs.difference(drawn, [dense])
    row = next(row for row in against_dense.rows([dense, *drawn]) if row.method == "prune80:random")
    assert found.a == row.score == pytest.approx(np.exp(2)) and found.b == pytest.approx(np.e)


def test_what_cannot_be_compared_is_said():
    a = record("prune80", acc=right(100, 5))
    with pytest.raises(UserError, match="prune80 has 100 samples, prune95 90"):
        pairs.difference([a], [record("prune95", acc=right(90, 5))])
    with pytest.raises(UserError, match="every head"):
        pairs.difference([a], [missing("heads50:l1", "failed", "every head has the same norm")])
    with pytest.raises(UserError, match="f1"):
        pairs.difference([a], [record("prune95", acc=right(100, 5))], "f1")


@pytest.fixture
def folder(tmp_path):
    for item in (
        record("dense", acc=right(100, 5)), record("prune80", acc=right(100, 9)),
        record("prune95", acc=right(100, 30)), record("prune80:random", acc=right(100, 30)),
        record("prune80:random:seed=1", acc=right(100, 36)),
        record("prune80", model="other", acc=right(100, 9)),
    ):  # fmt: skip
        records.write(tmp_path, item)
    return str(tmp_path)


def test_compare_says_how_far_answers_are_from_denses(tmp_path, capsys):
    rng = np.random.default_rng(0)
    turned = {"prune80": right(400, 12) != 1, "prune95": right(400, 60) != 1}
    items = [record("dense", acc=right(400, 20))]
    for method, flips in turned.items():
        items.append(faithful(record(method, acc=right(400, 25)), flips=flips, kl=rng.gamma(1, 0.1, 400)))
    for item in items:
        records.write(tmp_path, item)
    assert main(["compare", "prune80", "prune95", "--records", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [each for each in lines if "flips from dense" in each]
    # 48 turn with the second alone: Tango's interval, McNemar's p
    ((low, high),) = tango_each([(48, 0)], 400)
    shown = f"−12.0 [{100 * low:.1f}, {100 * high:.1f}] points".replace("-", "−")
    assert line == (
        "tiny sst2: flips from dense: prune80 3.0% [1.7, 5.2], prune95 15.0% [11.8, 18.8]: "
        f"{shown}, p < 0.001"
    )
    (line,) = [each for each in lines if "kl from dense" in each]
    assert " nats, p = " in line and "points" not in line
    assert main(["compare", "dense", "prune80", "--records", str(tmp_path)]) == 0
    assert "tiny sst2: flips from dense: prune80 3.0% [1.7, 5.2]\n" in capsys.readouterr().out


def test_compare_prints_difference_interval_p_and_flips(folder, capsys):
    assert main(["compare", "prune80", "prune95", "--records", folder]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tiny sst2 acc: prune80 91.0, prune95 70.0: +21.0 [+")
    assert lines[0].endswith("points, p < 0.001, 100 samples")
    assert lines[1].startswith("  prune80 scores higher on 21 samples: 9, 10, 11") and lines[1].endswith(
        ", …"
    )
    assert lines[2] == "  prune95 scores higher on 0 samples"
    assert lines[-1].endswith("of right and wrong by Tango's score interval and McNemar's exact test.")
    assert main(["compare", "prune80.0", "prune80:random", "--records", folder, "--task", "sst2"]) == 0
    told = capsys.readouterr().out
    assert "prune80:random 67.0" in told
    assert told.splitlines()[-2] == "  (these by the first of 2 seeds of prune80:random)"
    assert told.splitlines()[-1].endswith(
        "paired by sample: of other scores, or of several seeds, by a BCa bootstrap."
    )


def test_a_pair_that_cannot_be_compared_does_not_hide_the_others(tmp_path, capsys):
    for task in ("sst2", "rte"):
        for method, wrong in (("prune80", 9), ("prune95", 30)):
            item = record(method, task=task, acc=right(100, wrong))
            if task == "rte":
                item.status, item.error, item.metrics, item.scores = "not applicable", "no head", {}, {}
            records.write(tmp_path, item)
    assert main(["compare", "prune80", "prune95", "--records", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "tiny sst2 acc: prune80 91.0" in out and out.count("tiny rte prune80: no head") == 1
    assert main(["compare", "prune80", "prune95", "--records", str(tmp_path), "--task", "rte"]) == 2
    assert "tiny rte prune80: no head" in capsys.readouterr().err


def test_compare_takes_what_is_recorded_without_its_plugin(folder, capsys):
    for method, wrong in (("top-k4", 9), ("top-k4:seed=1", 11), ("dense+more", 3)):
        records.write(folder, record(method, acc=right(100, wrong)))
    assert main(["compare", "top-k4", "prune95", "--records", folder]) == 0
    assert "tiny sst2 acc: top-k4 90.0, prune95 70.0" in capsys.readouterr().out
    assert main(["compare", "top-k4:seed=1", "dense+more", "--records", folder]) == 0
    assert "top-k4:seed=1 89.0, dense+more 97.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["prune80", "prune90"], "unknown recorded method 'prune90'. Did you mean"),
        (["prune80", "prune95", "--model", "other"], "unknown recorded method 'prune95'"),
        (["prune80", "prone"], "unknown method 'prone'"),
        (["dense", "prune95", "--task", "squad"], "unknown recorded task 'squad'. Recorded: sst2."),
        (["prune80", "prune90", "--model", "bert"], "unknown recorded model 'bert'. Recorded: other, tiny."),
        (["prune80", "prune90", "--model", "tine"], "unknown recorded model 'tine'. Did you mean tiny?"),
    ],
)
def test_compare_names_mistakes(folder, capsys, arguments, words):
    assert main(["compare", *arguments, "--records", folder]) == 2
    assert words in capsys.readouterr().err


def test_compare_knows_a_model_by_its_short_name(folder, capsys):
    for method, wrong in (("prune80", 9), ("prune95", 30)):
        records.write(folder, record(method, model="pocket-bert", acc=right(100, wrong)))
    for name in ("bert", "pocket-bert"):
        assert main(["compare", "prune80", "prune95", "--records", folder, "--model", name]) == 0
        out = capsys.readouterr().out
        assert "pocket-bert sst2 acc" in out and "tiny" not in out
    assert main(["compare", "prune80", "prune90", "--records", folder, "--model", "bert"]) == 2
    assert "unknown recorded method 'prune90'. Did you mean" in capsys.readouterr().err
