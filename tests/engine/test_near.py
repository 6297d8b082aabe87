"""Long texts: simulated windows leave out the keys that no query of a strip sees, and nothing else does."""

from __future__ import annotations

import pytest
import torch
from closeness import close
from torch.utils.flop_counter import FlopCounterMode

from attnbench import Method, Site, parse
from attnbench.engine.places import blocks
from attnbench.engine.realised import near
from attnbench.engine.realised.sparse import Room
from attnbench.engine.serving import tiles
from attnbench.engine.serving.applied import Applied
from attnbench.engine.serving.guard import Guard
from attnbench.engine.serving.scored import Scratch, Stages

LAYER = 24  # steps that round, of an attention


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("spec", ["window48", "sink4:window=48", "window48+sink2:window=32"])
def test_long_texts_are_read_near_each_query_alone(spec, causal):
    """Against masked attention written out, and by the products that torch counts."""
    draw = torch.Generator().manual_seed(0)
    tokens, first = 760, 20  # of the second text's padding
    q, k, v = (torch.randn(2, 4, tokens, 8, generator=draw) for _ in range(3))
    mask = torch.ones(2, 1, tokens, tokens, dtype=torch.bool)
    mask = mask.tril() if causal else mask
    mask[1, ..., :first] = False
    site = Site("", "decoder" if causal else "encoder", 0, heads=4, head_dim=8)
    methods = parse(spec)
    stages = Stages(scores=[Guard(method, "scores") for method in methods])
    way = near.near([Applied(methods, [site])], site, Room())
    at = torch.arange(tokens)
    distance = (at[:, None] - at).abs()
    kept = torch.ones(2, 1, tokens, tokens, dtype=torch.bool)
    for text, begin in enumerate((0, first)):
        for sinks, width in {"window48": [(0, 48)], "sink4:window=48": [(4, 48)]}.get(
            spec, [(0, 48), (2, 32)]
        ):
            kept[text] &= (distance < width) | (at - begin < sinks)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=kept & mask)
    work = []
    for skip in (None, way):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            found = tiles.attend(site, stages, Scratch(), q, k, v, mask, causal=causal, skip=skip)
        work.append(counter.get_total_flops())
        for text, begin in enumerate((0, first)):
            close(found[text, begin:], expected[text].transpose(0, 1)[begin:], roundings=LAYER)
    assert work[1] < work[0] * (0.45 if causal else 0.3)


@pytest.mark.parametrize(
    "methods",
    [
        ["window700"], ["prune50"], ["window8", "prune50"], ["heads50:random"],
        [type("Nameless", (Method,), {"scores": lambda self, scores, site: scores})()],
        [type("Looks", (Method,), {"name": "looks", "scores": lambda self, s, site: s.relu()})()],
    ],
)  # fmt: skip
def test_what_is_not_near_is_simulated_whole(methods):
    """Nothing is planned of what keeps far keys, looks at the text, differs by head or is there to look."""
    site = Site("", "encoder", 0, heads=2, head_dim=4)
    found = [each for method in methods for each in (parse(method) if isinstance(method, str) else [method])]
    way = near.near([Applied(tuple(found), [site])], site, Room())
    q = torch.randn(1, 2, 730, 4, generator=torch.Generator().manual_seed(0))
    (block,) = blocks.blocks("encoder", q, q, None, False)
    assert way is None or not way(block, q, q, q, 0.5, q.new_empty(1, 730, 2, 4))


class Narrowing(Method):
    """Hide all but a window whose width can be set, or narrows by itself at every call."""

    name = "narrowing"
    width, by = 64, 0

    def scores(self, scores, site):
        width, self.width = self.width, self.width - self.by
        rows = torch.arange(site.offset, site.offset + scores.shape[-2])[:, None]
        return scores.masked_fill((rows - torch.arange(scores.shape[-1])).abs() >= width, -torch.inf)


def test_what_hides_something_else_by_now_is_simulated():
    site = Site("", "encoder", 0, heads=2, head_dim=4)
    q = torch.randn(1, 2, 768, 4, generator=torch.Generator().manual_seed(0))
    (block,) = blocks.blocks("encoder", q, q, None, False)
    method, out = Narrowing(), q.new_empty(1, 768, 2, 4)
    way = near.near([Applied((method,), [site])], site, Room())
    for _ in range(3):
        assert way(block, q, q, q, 0.5, out)
    method.width = 32
    assert not way(block, q, q, q, 0.5, out)
    changing = Narrowing()
    changing.by = 1
    assert not near.near([Applied((changing,), [site])], site, Room())(block, q, q, q, 0.5, out)
