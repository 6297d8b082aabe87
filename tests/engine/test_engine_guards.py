"""What may happen around applied methods: compilation, threads, blocks left in another order, wrappers."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
import warnings

import pytest
import torch
from closeness import clear_of_jumps, close
from tiny_models import ZOO, padded, tiny

import attnbench
from attnbench.engine.places.sites import discover
from attnbench.engine.serving.dispatch import layer_of
from attnbench.errors import UserError


@pytest.mark.parametrize("name, spec", [("llama", "prune80"), ("t5", "prune80"), ("bert", "hidden-quant7")])
def test_compiled_parts_are_served_and_counted(name, spec):
    """Parts alone: a whole model takes dynamo longer, and calls the same function."""
    model = copy.deepcopy(tiny(name))
    batch = clear_of_jumps(model, spec, lambda seed: padded(model, examples=2, tokens=6, seed=seed))
    layers = len(ZOO[name][2])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dynamo's own
        dense = model(**batch).logits
        with attnbench.apply(model, spec):
            expected = model(**batch).logits
        kind = "cross" if name == "t5" else None
        for site in [site for site in discover(model) if kind in (None, site.kind)]:
            path = layer_of(model, site.path) if spec.startswith("hidden") else site.path
            model.get_submodule(path).compile(backend="eager")
        with attnbench.apply(model, spec) as applied:
            for calls in (1, 2):
                close(model(**batch).logits, expected, layers=layers)
                assert applied.hit == applied.expected
                assert set(applied.hits.values()) == {calls}
        close(model(**batch).logits, dense, layers=layers)
    torch._dynamo.reset()


def test_the_command_line_starts_without_torch():
    code = "import sys, attnbench.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["bert", "albert", "t5"])
def test_threads_do_not_disturb_each_other(name):
    model = tiny(name)
    sizes = ((8, 14), (3, 90), (6, 60))
    batches = [
        clear_of_jumps(
            model, "prune80:layers=1", lambda seed, e=e, t=t: padded(model, examples=e, tokens=t, seed=seed)
        )
        for e, t in sizes
    ]
    wrong: list[object] = []
    with torch.no_grad(), attnbench.apply(model, "prune80:layers=1"):
        alone = [model(**batch).logits for batch in batches]

    def run(batch, expected):
        try:
            with torch.no_grad():
                for _ in range(8):
                    close(model(**batch).logits, expected, layers=len(ZOO[name][2]))
        except Exception as error:
            wrong.append(error)

    with attnbench.apply(model, "prune80:layers=1") as applied:
        threads = [threading.Thread(target=run, args=pair) for pair in zip(batches, alone, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong and applied.hit == applied.expected


def test_a_tap_refuses_another_thread():
    from tapped_models import tiny as tapped

    model = tapped("deberta")
    said: list[object] = []

    def run():
        try:
            model(torch.tensor([[5, 6, 7]]))
        except Exception as error:
            said.append(error)

    with attnbench.apply(model, "prune80"):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert len(said) == 1 and isinstance(said[0], UserError) and "one thread" in str(said[0])


def test_blocks_left_out_of_order():
    model = tiny("bert")
    batch = padded(model)
    with torch.no_grad():
        dense = model(**batch).logits
        outer, inner = attnbench.apply(model, "prune80"), attnbench.apply(model, "logquant3")
        outer.__enter__(), inner.__enter__()
        with pytest.raises(UserError, match="left before one inside it"):
            outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)
        assert torch.equal(model(**batch).logits, dense)


def test_a_model_without_weights_is_refused():
    model = copy.deepcopy(tiny("bert")).to("meta")
    with pytest.raises(UserError, match="no weights yet"), attnbench.apply(model, "prune80"):
        pass


def test_a_wrapper_is_told_its_model():
    model = copy.deepcopy(tiny("bert"))
    compiled = torch.compile(model, backend="eager")
    with pytest.raises(UserError, match=r"\._orig_mod, and run"), attnbench.apply(compiled, "prune80"):
        pass
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own, of what peft asks
        wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"], r=2))
    with pytest.raises(UserError, match=r"\.base_model\.model, and"), attnbench.apply(wrapped, "prune80"):
        pass
    with attnbench.apply(wrapped.base_model.model, "prune80") as applied, torch.no_grad():
        wrapped(**padded(model))
    assert applied.hit == applied.expected == 3
