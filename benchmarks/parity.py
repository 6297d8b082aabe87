"""Compare our attention with each architecture's own, as a markdown table: python benchmarks/parity.py

Tiny random models (those of the tests), 8 padded samples, an identity stage in the way, real tokens only;
differences relative to the largest output where that exceeds 1. Does not depend on load or machine.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import test_parity
import test_tap
import tiny_models
import torch

from attnbench import apply
from attnbench.engine.places import softmax
from attnbench.engine.places.routing import implementation


def difference(model: Any, batch: dict[str, torch.Tensor]) -> tuple[float, Counter[str]]:
    """Return the largest difference from the model's own eager pass, and its sites by kind."""
    own = contextlib.nullcontext() if softmax.needed(model) else implementation(model, "eager")
    with torch.no_grad(), own:
        expected = test_parity.real(model(**batch).logits, batch)
    with torch.no_grad(), apply(model, test_parity.Identity()) as applied:
        found = test_parity.real(model(**batch).logits, batch)
    if applied.hit != applied.expected:
        raise RuntimeError(f"{type(model).__name__}: {applied.hit} of {applied.expected} sites reached")
    return test_parity.worst(found.float(), expected.float()), Counter(s.kind for s in applied.sites)


def main() -> None:
    cases = [(name, tiny_models.tiny(name), tiny_models.padded, side) for name, side in test_parity.SIDES]
    cases += [(name, test_tap.tiny(name), None, test_tap.ZOO[name][3]) for name in test_tap.ZOO]
    print("| architecture | class | padding | served by | sites | float32 | bfloat16 |")
    print("|---|---|---|---|---|---|---|")
    for name, model, make, side in cases:
        batch = make(model, side) if make else test_tap.padded(name, examples=8)
        exact, kinds = difference(model, batch)
        with torch.no_grad():
            coarse, _ = difference(test_parity.halved(model), batch)
        sites = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        by = "softmax tap" if softmax.needed(model) else "interface"
        print(f"| {name} | {type(model).__name__} | {side} | {by} | {sites} | {exact:.1e} | {coarse:.1e} |")


if __name__ == "__main__":
    main()
