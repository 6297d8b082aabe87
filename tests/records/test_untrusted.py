"""Records and arrays that somebody else made: sizes, links, pipes, numbers and nesting have bounds."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile

import numpy as np
import pytest
from sample_records import record, right

from attnbench.records import arrays
from attnbench.records import record as records


def written(folder, extra=None, header=None):
    """Write a record whose archive holds arrays of our making, its hash right."""
    item = record("prune80", acc=right(40, 3))
    path = records.write(folder, item)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in item.scores.items():
            inner = io.BytesIO()
            np.lib.format.write_array(inner, array)
            data = inner.getvalue()
            archive.writestr(f"{name}.npy", header(data) if header and name == "acc" else data)
        for name, data in (extra or {}).items():
            archive.writestr(name, data)
    path.with_suffix(".npz").write_bytes(buffer.getvalue())
    body = json.loads(path.read_text())
    body["provenance"]["arrays"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    path.write_text(json.dumps(body))
    return path


def test_only_what_a_metric_names_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "LARGEST", 1 << 20)
    path = written(tmp_path, {"bomb.npy": bytes(8 << 20), "../../evil.npy": b"x"})
    assert path.with_suffix(".npz").stat().st_size < 1 << 16
    assert sorted(records.read(path).scores) == ["acc", "doc_id"]


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (lambda data: data + bytes(8 << 20), "more than"),
        (lambda data: data.replace(b"(40,)", b"(4.,)"), "shape is not valid"),
        (lambda data: data.replace(b"(40,), }    ", b"(999999,), }"), "no plain array of the size it says"),
        (lambda data: data.replace(b"'<f8'", b"'|O' "), "no plain array"),
        (lambda data: data[:20], r"npz: .+"),
    ],
)
def test_an_array_that_is_not_what_it_says_is_one_line(header, told, tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "LARGEST", 1 << 20)
    with pytest.raises(ValueError, match=told):
        records.read(written(tmp_path, header=header))


def test_links_pipes_and_devices_are_not_read(tmp_path, capsys):
    good = records.write(tmp_path / "real", record("dense", acc=right(40, 3)))
    folder = tmp_path / "r" / "tiny" / "sst2"
    folder.mkdir(parents=True)
    (folder / "link.json").symlink_to(good)
    (folder / "secret.json").symlink_to("/etc/hostname")
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.json").mkdir()
    (tmp_path / "r" / "other").symlink_to(tmp_path / "real" / "tiny")
    assert list(records.read_all(tmp_path / "r")) == []
    err = capsys.readouterr().err
    assert err.count("a link, which is not followed") == 3 and "no regular file" in err
    assert err.count("\n") == 5
    arrays_of = good.with_suffix(".npz")
    arrays_of.rename(tmp_path / "elsewhere.npz")
    arrays_of.symlink_to(tmp_path / "elsewhere.npz")
    with pytest.raises(ValueError, match="a link"):
        records.read(good)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"limit": null', f'"limit": {"9" * 4000}'),
        ('"limit": null', f'"limit": {"9" * 6000}'),
        ('"fitted": {}', '"fitted": ' + '{"a":' * 5000 + "1" + "}" * 5000),
        ('"fitted": {}', '"fitted": {"b": ' + '{"a":' * 200 + "1" + "}" * 201),
        ('"fitted": {}', '"fitted": NaN'),
        ('"fitted": {}', '"fitted": {"a": 1e999}'),
        ('"fitted": {}', '"fitted": {"a": -%s.5}' % ("9" * 400)),
        ('"date"', '"date" "'),
    ],
)
def test_a_json_beyond_bounds_is_one_line(old, new, tmp_path, capsys):
    path = records.write(tmp_path, record("dense", acc=right(40, 3)))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert list(records.read_all(tmp_path)) == []
    assert capsys.readouterr().err.count("\n") == 1
    path.write_bytes(b" " * (records.LARGEST + 1))
    with pytest.raises(ValueError, match="bytes, at most"):
        records.read(path)
