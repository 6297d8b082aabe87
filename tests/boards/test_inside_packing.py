"""Maps in bytes: what is unpacked is what went in, within half a step, and never over the room."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from attnbench.boards.inside import packing

STEP = 10 ** (8 / 252)  # by the docstring, with nothing above 1
PROBABILITIES = st.one_of(st.just(0.0), st.just(1.0), st.floats(1e-8, 1.0), st.just(float("nan")))


@given(arrays.arrays(np.float64, (3, 4), elements=PROBABILITIES))
def test_a_weight_comes_back_within_half_a_step(array):
    back = packing.weights(packing.levels(array))
    np.testing.assert_array_equal(np.isnan(back), np.isnan(array))
    np.testing.assert_array_equal(back == 0, array == 0)
    seen = array > 0
    ratio = back[seen] / array[seen]
    assert (ratio <= STEP**0.5 * (1 + 1e-9)).all() and (ratio >= STEP**-0.5 * (1 - 1e-9)).all()


@pytest.mark.parametrize("weight, read", [(1e-12, 1e-8), (1e-8, 1e-8), (1.0, 1.0), (1.001, 1.0)])
def test_the_ends_of_the_scale(weight, read):
    (back,) = packing.weights(packing.levels(np.array([weight])))
    assert back == pytest.approx(read, rel=1e-12)


def test_a_method_that_exceeds_one_has_a_longer_scale():
    array = np.array([[[4.0, 0.5, 1e-8, np.nan]]])
    maps = {(0, "m"): {("encoder", 0): array}}
    assert packing.top(maps) == pytest.approx(np.log10(4))
    back = packing.weights(packing.levels(array, packing.top(maps)), packing.top(maps))
    np.testing.assert_allclose(back[0, 0, :3], [4, 0.5, 1e-8], rtol=10 ** (8.61 / 252 / 2) - 1)
    assert packing.top({(0, "m"): {("encoder", 0): np.array([[[1.003]]])}}) == 0


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match="negative"):
        packing.levels(np.array([-0.1]))


@given(
    arrays.arrays(np.uint8, (4, 9), elements=st.sampled_from([0, 1, 7, 100, 253, 255])), st.integers(1, 10)
)
def test_the_largest_of_a_row_stay(levels, entries):
    found = packing.largest(levels, entries)
    for row, kept in zip(levels, found, strict=True):
        drawn = sorted((each for each in row if 0 < each < 254), reverse=True)
        bar = drawn[entries - 1] if len(drawn) >= entries else 0
        for before, after in zip(row, kept, strict=True):
            assert after == (254 if 0 < before < 254 and before < bar else before)


def _maps(heads=4, tokens=40):
    random = np.random.default_rng(0)
    drawn = {
        key: {("encoder", layer): random.dirichlet(np.full(tokens, 0.1), (heads, tokens)) for layer in (0, 1)}
        for key in ((0, "dense"), (0, "m"))
    }
    return drawn


def _unpacked(blob, maps, kept=None):
    """Undo a blob by hand: place after place, head after head, row by row."""
    flat = np.frombuffer(zlib.decompress(base64.b64decode(blob)), dtype=np.uint8)
    found, start = {}, 0
    for place, array in maps.items():
        for head in range(len(array)):
            if kept is None or (*place, head) in kept:
                found[(*place, head)] = flat[start : start + array[head].size].reshape(array[head].shape)
                start += array[head].size
    assert start == len(flat)
    return found


def test_a_blob_is_every_head_in_order():
    maps = _maps()
    packed = packing.pack(maps, 10**6)
    assert packed.entries is None and packed.heads is None and packed.high == 0
    for key, blob in packed.blobs.items():
        for (kind, layer, head), levels in _unpacked(blob, maps[key]).items():
            np.testing.assert_array_equal(levels, packing.levels(maps[key][kind, layer][head]))


def test_less_room_is_fewer_entries_then_fewer_heads_and_never_exceeded():
    maps = _maps()
    whole = sum(map(len, packing.pack(maps, 10**6).blobs.values()))
    order = [("encoder", 1, 3), ("encoder", 0, 0)]
    seen = []
    for room in (whole, whole - 1, whole // 2, whole // 3, whole // 6, whole // 12):
        packed = packing.pack(maps, room, order)
        assert sum(map(len, packed.blobs.values())) <= room
        seen.append((packed.entries, packed.heads and len(packed.heads)))
        for key, blob in packed.blobs.items():
            _unpacked(blob, maps[key], packed.heads)
        if packed.heads:
            assert packed.heads[0] == order[0]
    assert seen[0] == (None, None) and seen[1][0] == 32 and seen[-1][1] is not None
    sizes = [(entries or 40) * (heads or 8) for entries, heads in seen]
    assert sizes == sorted(sizes, reverse=True)


def test_no_room_is_no_map():
    packed = packing.pack(_maps(), 10)
    assert packed.blobs == {} and packed.heads == ()


def test_nothing_to_pack_is_no_blob():
    assert packing.pack({}, 0).blobs == {}
