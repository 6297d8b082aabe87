"""The files that `attnbench new-method` writes: a method of each kind and its test, as templates."""

HEAD = '''"""{title}: edit what has an arrow, then see whether it keeps its promises.

`attnbench check {name} --plugin {file}`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnbench import {public}

if TYPE_CHECKING:
{shown}


'''

TAIL = """

@hookimpl
def register_methods(register: Any) -> None:
    register({title})
"""

TRANSFORM = '''@dataclass
class {title}(Method):
    """Cap every attention probability at a share of one.

    y = min(x, p / 100); no renormalisation. Shapes: probs (batch, heads, queries, keys).
    Source: https://arxiv.org/abs/1706.03762.
    """  # <- one imperative line, the formula, the shapes, where it comes from

    name = "{name}"
    examples = ("{name}50", "{name}20")  # <- specs that the tests run
    zero = 100  # <- the amount that changes nothing, where there is one

    percent: float  # the first field is the amount in the spec: `{name}50`

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ValueError("the cap is between 0 and 100 percent")

    def probs(self, probs: Tensor, site: Site) -> Tensor:  # <- or hidden, scores, normalize, context
        most = self.percent / 100
        return probs.clamp(max=most) if probs.requires_grad else probs.clamp_(max=most)
'''

CALIBRATED = '''@dataclass
class {title}(Method):
    """Cap every attention probability at what its head gives its keys on average, times a factor.

    y = min(x, f m_h) with m_h the mean over calibration data of each query's largest probability.
    Shapes: probs (batch, heads, queries, keys); mean_ (heads,) per layer. Source: https://arxiv.org/abs/1706.03762.
    """  # <- one imperative line, the formula, the shapes, where it comes from

    name = "{name}"
    examples = ("{name}0.5", "{name}0.25")  # <- specs that the tests run

    factor: float  # the first field is the amount in the spec: `{name}0.5`

    def __post_init__(self) -> None:
        if self.factor < 0:
            raise ValueError("the factor is not negative")

    def fit(self, model: Any, batches: list[dict[str, Tensor]]) -> None:
        import torch

        from attnbench import watch

        sums: dict[tuple[str, int], Tensor] = {{}}
        rows: dict[tuple[str, int], int] = {{}}

        def see(probs: Tensor, site: Site) -> None:  # <- what the calibration data has to tell
            if self.selects(site):
                key = site.kind, site.layer
                sums[key] = sums.get(key, 0) + probs.amax(-1).double().sum((0, 2))
                rows[key] = rows.get(key, 0) + probs.shape[0] * probs.shape[2]

        with watch(model, probs=see), torch.no_grad():
            for batch in batches:
                model(**batch)
        # a name that ends in an underscore was learned: it is stored with the record
        self.mean_ = {{key: total / rows[key] for key, total in sums.items()}}

    def probs(self, probs: Tensor, site: Site) -> Tensor:  # <- what the method does with it
        mean = self.mean_[site.kind, site.layer].to(probs)
        return probs.minimum(self.factor * mean[:, None, None])
'''

TRAINED = '''@dataclass
class {title}(Method):
    """Scale each head by a gate that is trained against the task's loss and a penalty, the model frozen.

    y = g_h context_h, g after that many steps of gradient descent on loss + 0.01 sum |g|, from 1, in 0 to 1.
    Shapes: context (batch, heads, queries, head_dim); gates_ (heads,) per layer. Needs labels.
    Source: https://arxiv.org/abs/1706.03762.
    """  # <- one imperative line, the formula, the shapes, where it comes from

    name = "{name}"
    examples = ("{name}5",)  # <- specs that the tests run: a few steps
    zero = 0  # <- the amount that changes nothing, where there is one

    steps: int  # the first field is the amount in the spec: `{name}5`

    def fit(self, model: Any, batches: list[dict[str, Tensor]]) -> None:
        import torch

        from attnbench import apply, discover

        device = next(model.parameters()).device
        # a name that ends in an underscore was learned: it is stored with the record
        self.gates_ = {{
            (site.kind, site.layer): torch.ones(site.heads, device=device, requires_grad=True)
            for site in discover(model)
            if self.selects(site)
        }}
        gates = list(self.gates_.values())
        optimizer = torch.optim.SGD(gates, lr=0.1)
        with apply(model, self), torch.enable_grad():
            for step in range(self.steps):
                loss = model(**batches[step % len(batches)]).loss + 0.01 * sum(g.abs().sum() for g in gates)
                # the gates' gradients alone: the model's weights, flags and gradients stay as they are
                for gate, slope in zip(gates, torch.autograd.grad(loss, gates), strict=True):
                    gate.grad = slope
                optimizer.step()  # <- the training step
                for gate in gates:
                    gate.data.clamp_(0, 1)
        for gate in gates:
            gate.requires_grad_(False).grad = None

    def context(self, context: Tensor, site: Site) -> Tensor:  # <- what the method does with it
        return context * self.gates_[site.kind, site.layer].to(context.dtype)[:, None, None]
'''

CACHE = '''@dataclass
class {title}(Method):
    """Keep the tokens of a prompt whose values have the largest norm.

    Of n tokens each key-value head keeps the n - floor(n p / 100) of the largest L2 norm of their value, ties
    to the lower index. Shapes: values (key-value heads, tokens, head_dim). Source:
    https://arxiv.org/abs/1706.03762.
    """  # <- one imperative line, the formula, the shapes, where it comes from

    name = "{name}"
    examples = ("{name}50", "{name}20")  # <- specs that the tests run
    zero = 0  # <- the amount that changes nothing, where there is one

    percent: float  # the first field is the amount in the spec: `{name}50`

    def __post_init__(self) -> None:
        if not 0 <= self.percent < 100:
            raise ValueError("the share to evict is at least 0 and under 100 percent")

    def cache(self, prompt: Prompt, site: Site) -> Kept:  # one example at one site; nothing may be remembered
        keep = prompt.tokens - int(prompt.tokens * self.percent / 100)
        worth = prompt.values.float().norm(dim=-1)  # <- by what tokens are chosen: keys, values, probs(rows)
        order = worth.argsort(dim=-1, descending=True, stable=True)
        return Kept(tokens=order.argsort(dim=-1) < keep)  # <- and keys= or values= where they change
'''

TEST = '''"""{title} keeps every promise that `attnbench check` knows of, and computes its formula."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnbench import plugins
from attnbench.testing import check_method, expand

plugins.load([str(Path(__file__).with_name("{file}"))])


@pytest.mark.parametrize("spec", expand("{name}"))
def test_it_keeps_its_promises(spec):
    report = check_method(spec)
    assert report.ok, str(report)
'''

FORMULA = """

def test_its_formula():
    import torch

    from attnbench import transform

    row = torch.tensor([0.7, 0.2, 0.1, 0.0])
    assert transform("{name}50", row).tolist() == pytest.approx([0.5, 0.2, 0.1, 0.0])  # <- by hand
"""

FORMULA_CALIBRATED = """

def test_its_formula():
    import torch

    from attnbench import Site, parse

    (method,) = parse("{name}0.5")
    method.mean_ = {{("encoder", 0): torch.tensor([0.8, 0.4])}}  # <- what fit would learn of two heads
    rows = torch.tensor([0.7, 0.2, 0.1]).expand(1, 2, 1, 3).clone()  # (batch, heads, queries, keys)
    found = method.probs(rows, Site("", "encoder", 0, heads=2, head_dim=4))
    assert found[0, 0, 0].tolist() == pytest.approx([0.4, 0.2, 0.1])  # <- by hand
    assert found[0, 1, 0].tolist() == pytest.approx([0.2, 0.2, 0.1])
"""

FORMULA_TRAINED = """

def test_its_formula():
    import torch

    from attnbench import Site, parse

    (method,) = parse("{name}5")
    method.gates_ = {{("encoder", 0): torch.tensor([1.0, 0.25])}}  # <- what fit would learn of two heads
    context = torch.tensor([2.0, 4.0]).expand(1, 2, 1, 2).clone()  # (batch, heads, queries, head_dim)
    found = method.context(context, Site("", "encoder", 0, heads=2, head_dim=2))
    assert found[0, :, 0].tolist() == [[2.0, 4.0], [0.5, 1.0]]  # <- by hand
"""

FORMULA_CACHE = """

def test_its_formula():
    import torch

    from attnbench import Prompt, Site, parse

    (method,) = parse("{name}50")
    values = torch.tensor([[[3.0], [-4.0], [1.0], [2.0]]])  # (key-value heads, tokens, head_dim)
    prompt = Prompt(values, values, values, attend=lambda rows: values)
    found = method.cache(prompt, Site("", "decoder", 0, heads=1, head_dim=1))
    assert found.tokens.tolist() == [[True, True, False, False]]  # <- by hand
"""

# what a file imports of attnbench, and what for its annotations
PLAIN = {
    "public": "Method, hookimpl",
    "shown": "    from torch import Tensor\n\n    from attnbench import Site",
}
OF_PROMPTS = {"public": "Kept, Method, hookimpl", "shown": "    from attnbench import Prompt, Site"}

KINDS = {
    "transform": (TRANSFORM, FORMULA),
    "calibrated": (CALIBRATED, FORMULA_CALIBRATED),
    "trained": (TRAINED, FORMULA_TRAINED),
    "cache": (CACHE, FORMULA_CACHE),
}
