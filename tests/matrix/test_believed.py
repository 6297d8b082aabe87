"""A record that was edited, or is of another model than its column, is never shown as what was measured."""

from __future__ import annotations

import json

import pytest
from sample_records import record, right

from attnbench import UserError
from attnbench.cli.main import main
from attnbench.records import merging
from attnbench.records import record as records
from attnbench.statistics import against_dense, pairs

ASKED = ["--models", "pocket-bert", "--tasks", "pocket-sentiment", "--methods", "prune80", "--limit", "24"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured") / "records"
    assert main(["run", *ASKED, "--records", str(folder)]) == 0
    return folder / "pocket-bert" / "pocket-sentiment"


EDITS = {
    "value": lambda body: body["metrics"]["acc"].update(value=0.5),
    "seed": lambda body: body["settings"].update(seed=7),
    "limit": lambda body: body["settings"].update(limit=48),
    "weights": lambda body: body["provenance"]["fingerprints"].update(checkpoint="0" * 64),
    "sparsity": lambda body: body["measured"].update(sparsity=0.95),
    "samples": lambda body: body["measured"].pop("samples"),
}
TOLD = {
    "value": "acc is 0.5 in the record but", "seed": "its identity is of other settings",
    "limit": "its identity is of other settings", "weights": "its identity is of other settings",
    "sparsity": "now, 0.95 then: DISAGREES", "samples": "samples: 16 now, None then: DISAGREES",
}  # fmt: skip


def edited(measured, folder, edit):
    """Copy the records with one of them edited, and return its file."""
    place = folder / "pocket-bert" / "pocket-sentiment"
    place.mkdir(parents=True)
    for file in measured.iterdir():
        if file.is_file():
            (place / file.name).write_bytes(file.read_bytes())
    path = place / "prune80.json"
    body = json.loads(path.read_text())
    EDITS[edit](body)
    path.write_text(json.dumps(body))
    return path


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_record_is_not_verified(measured, edit, tmp_path, capsys):
    path = edited(measured, tmp_path, edit)
    assert main(["verify", str(path), "--sample", "16"]) == 1
    assert TOLD[edit] in capsys.readouterr().out


def test_a_record_as_it_was_is_verified(measured, capsys):
    assert main(["verify", str(measured / "prune80.json"), "--sample", "16"]) == 0
    assert "DISAGREES" not in (out := capsys.readouterr().out) and "not compared" not in out
    assert main(["verify", str(measured / "prune80.json"), "--sample", "8"]) == 0
    assert "divergence, bits: not compared, 8 samples are too few" in capsys.readouterr().out


@pytest.mark.parametrize("edit", ["value", "seed", "weights"])
def test_an_edited_record_is_measured_again(measured, edit, tmp_path, capsys):
    path = edited(measured, tmp_path, edit)
    given = ["--replace"] if edit != "value" else []  # what is of other settings gives way to nothing else
    assert main(["run", *ASKED, "--records", str(tmp_path), *given]) == 0
    told = capsys.readouterr()
    assert "as recorded" not in [line for line in told.err.splitlines() if "prune80" in line][-1]
    before, now = (records.read(place) for place in (measured / "prune80.json", path))
    assert now.metrics == before.metrics and now.settings == before.settings
    assert main(["run", *ASKED, "--records", str(tmp_path)]) == 0
    assert "prune80: acc" in (again := capsys.readouterr().err) and again.count("as recorded") == 3


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ("value", "acc is 0.5 in the record but"), ("identity", "attnbench measures otherwise since"),
        ("cell", "holds pocket-bert · pocket-sentiment · prune10, whose file is another"),
    ],
)  # fmt: skip
def test_the_status_of_an_edited_record_is_stale(edit, told, measured, tmp_path, capsys, monkeypatch):
    edits = {
        "identity": lambda body: body["provenance"].pop("identity"),
        "cell": lambda body: body["cell"].update(method="prune10"),
    }
    for name, change in edits.items():
        monkeypatch.setitem(EDITS, name, change)
    (tmp_path / "s.toml").write_text(
        'models = ["pocket-bert"]\ntasks = ["pocket-sentiment"]\nmethods = ["prune80"]\nlimit = 24\n'
    )
    edited(measured, tmp_path / "records" / "s", edit)
    assert main(["status", str(tmp_path / "s.toml")]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert f"stale: pocket-bert · pocket-sentiment · prune80: {told}" in out


def test_a_record_under_another_name_is_passed_over(measured, tmp_path, capsys):
    path = edited(measured, tmp_path, "value")
    body = json.loads(path.read_text())
    body["cell"]["method"] = "prune10"
    path.write_text(json.dumps(body))
    assert main(["leaderboard", "--records", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert (
        "prune10" not in out
        and "holds pocket-bert · pocket-sentiment · prune10, whose file is another" in err
    )


def of(method, wrong, checkpoint="a", dtype="float32", **prints):
    item = record(method, acc=right(40, wrong))
    item.provenance = {
        "fingerprints": {"checkpoint": checkpoint, **prints},
        "identity": f"{method} {checkpoint}",
    }
    item.settings["dtype"] = dtype
    return item


@pytest.mark.parametrize(
    "other, told",
    [
        (of("prune50", 9, "b"), "is of other weights than dense"),
        (of("prune50", 9, **{"beside the weights": "t"}), "is of another tokenizer or settings than dense"),
        (of("prune50", 9, dtype="bfloat16"), "was measured in bfloat16, dense in float32"),
    ],
)  # fmt: skip
def test_what_is_of_another_model_is_compared_with_none(other, told):
    dense = of("dense", 0, **{"beside the weights": "s"})
    rows = {row.method: row for row in against_dense.rows([dense, of("prune80", 3), other])}
    assert rows["prune80"].status == "measured" and rows["prune80"].error is None
    assert rows["prune50"].status == "failed" and told in rows["prune50"].error
    with pytest.raises(UserError, match=told):
        pairs.difference([other], [dense])
    other.cell = {**other.cell, "model": "another"}  # two models side by side are what `compare` is for
    assert pairs.difference([other], [dense]).samples == 40


def folders(tmp_path, *contents):
    for number, items in enumerate(contents):
        for item in items:
            records.write(tmp_path / str(number), item)
    return [tmp_path / str(number) for number in range(len(contents))]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_merge_names_what_was_measured_alike_and_is_not_the_same(order, tmp_path):
    given = folders(tmp_path, [of("dense", 0), of("prune80", 0)], [of("dense", 1), of("prune80", 40)])
    found = merging.merge([given[place] for place in order], tmp_path / "all")
    assert found.written == 1 and len(found.problems) == 1  # one sample of 40 may turn by rounding
    assert "prune80" in found.problems[0] and "measured alike, its acc is" in found.problems[0]
    assert not (tmp_path / "all" / "tiny" / "sst2" / "prune80.json").exists()


@pytest.mark.parametrize("other", [of("prune50", 9, "b"), of("prune50", 9, dtype="bfloat16")])
@pytest.mark.parametrize("there", [True, False])
def test_a_merge_leaves_what_is_of_another_model_where_it_is(there, other, tmp_path):
    given = folders(tmp_path, [of("dense", 0), of("prune80", 3)], [other])
    if there:
        assert merging.merge(given[:1], tmp_path / "all").written == 2
    found = merging.merge(given[1:] if there else given, tmp_path / "all")
    assert found.written == (0 if there else 2) and len(found.problems) == 1
    assert (
        "prune50" in found.problems[0]
        and "is of other weights, or in another dtype, than" in found.problems[0]
    )


def test_what_learns_nothing_holds_whatever_a_run_is_calibrated_on(tmp_path, capsys):
    texts = [
        "text,label",
        *(f"a {word} film number {k},{k % 2}" for k in range(12) for word in ("good", "bad")),
    ]
    (tmp_path / "learn.csv").write_text("\n".join(texts))
    asked = [*ASKED[:-1], "16", "--records", str(tmp_path / "records")]
    assert main(["run", *asked]) == 0
    capsys.readouterr()
    calibrated = ["--methods", "prune80,heads50:gradient", "--calibration", str(tmp_path / "learn.csv")]
    assert main(["run", *asked, *calibrated]) == 0
    told = capsys.readouterr().err
    assert told.count("as recorded") == 3 and "heads50:gradient: acc" in told
    place = tmp_path / "records" / "pocket-bert" / "pocket-sentiment"
    kept = records.read(place / "prune80.json")
    assert kept.settings.get("calibration") is None
    assert main(["verify", str(place / "prune80.json"), "--sample", "8"]) == 0
    assert main(["run", *asked, "--methods", "heads50:gradient"]) == 2  # that one has learned from others
    assert "was measured with calibration" in capsys.readouterr().err
