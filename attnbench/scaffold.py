"""Write a new method: a plugin file that works as it stands, and its test."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from pathlib import Path

from attnbench.declared import NAME, RESERVED
from attnbench.errors import UserError, require_folder, unknown
from attnbench.plugins import option, registry

HEAD = '''"""{title}: edit what has an arrow, then see whether it keeps its promises.

`attnbench check {name} --plugin {file}`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnbench import Method, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Site


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

    y = g_h context_h, g from p steps of gradient descent on loss + 0.01 sum |g|, from 1, kept in 0 to 1.
    Shapes: context (batch, heads, queries, head_dim); gates_ (heads,) per layer. Needs labels.
    Source: https://arxiv.org/abs/1706.03762.
    """  # <- one imperative line, the formula, the shapes, where it comes from

    name = "{name}"
    examples = ("{name}5",)  # <- specs that the tests run: a few steps
    zero = 0  # <- the amount that changes nothing, where there is one

    steps: int  # the first field is the amount in the spec: `{name}5`

    def fit(self, model: Any, batches: list[dict[str, Tensor]]) -> None:
        import torch

        from attnbench import apply
        from attnbench.sites import discover

        device = next(model.parameters()).device
        # a name that ends in an underscore was learned: it is stored with the record
        self.gates_ = {{
            (site.kind, site.layer): torch.ones(site.heads, device=device, requires_grad=True)
            for site in discover(model)
            if self.selects(site)
        }}
        gates = list(self.gates_.values())
        with apply(model, self), torch.enable_grad():
            for step in range(self.steps):
                loss = model(**batches[step % len(batches)]).loss + 0.01 * sum(g.abs().sum() for g in gates)
                # the gates' gradients alone: the model's weights, flags and gradients stay as they are
                for gate, slope in zip(gates, torch.autograd.grad(loss, gates), strict=True):
                    gate.data = (gate.data - 0.1 * slope).clamp(0, 1)  # <- the training step
        for gate in gates:
            gate.requires_grad_(False)

    def context(self, context: Tensor, site: Site) -> Tensor:  # <- what the method does with it
        return context * self.gates_[site.kind, site.layer].to(context.dtype)[:, None, None]
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

KINDS = {"transform": TRANSFORM, "calibrated": CALIBRATED, "trained": TRAINED}


def write(name: str, kind: str = "transform", folder: str | Path = ".") -> tuple[Path, Path]:
    """Write `<name>.py` and `test_<name>.py` into a folder and return their paths.

    They are `<name>_method.py` and its test where Python has a module `<name>`, which it would hide. Raises
    UserError for a name that is taken or malformed, an unknown kind, files that are there already, and a
    folder that cannot be written.
    """
    if not NAME.fullmatch(name):
        plain = re.sub(r"-*:+-*", ":", re.sub("-+", "-", re.sub("[^a-z:]", "-", name.lower()))).strip("-:")
        nearest = f" Did you mean {plain}?" if NAME.fullmatch(plain) else ""
        raise UserError(
            f"'{name}' is no name for a method: lower-case letters, single dashes, no digits.{nearest}"
        )
    if name.partition(":")[0] == RESERVED:
        raise UserError(f"'{name}' is no name for a method: dense is the unmodified model.")
    if kind not in KINDS:
        raise unknown("kind of method", kind, KINDS, f"--kind takes {', '.join(KINDS)}.")
    if name in registry().methods:
        shown = f"attnbench methods {name}{option(registry().methods[name])}"
        raise UserError(f"method '{name}' exists already. `{shown}` shows it.")
    require_folder("--output", folder)
    stem = re.sub(r"[-:]", "_", name)
    stem += "_method" if _hides(stem, Path(folder)) else ""
    method, test = Path(folder) / f"{stem}.py", Path(folder) / f"test_{stem}.py"
    for path in (method, test):
        if path.exists():
            raise UserError(f"{path} is there already: move it away or give another --output DIR.")
    title = "".join(map(str.capitalize, re.split("[-:]", name)))
    if title in ("Any", "Method", "Site", "Tensor") or keyword.iskeyword(title):  # it would hide an import
        title += "Method"
    words = {"name": name, "file": method.name, "title": title}
    base, *variant = name.split(":")
    written = (HEAD + KINDS[kind] + TAIL).format(**words)
    tested = (TEST + (FORMULA if kind == "transform" else "")).format(**words)
    if variant:  # the amount stands before the variant: heads50:mine
        pattern = re.compile(rf"{re.escape(name)}(\d[\d.]*)")
        written, tested = (pattern.sub(rf"{base}\1:{':'.join(variant)}", text) for text in (written, tested))
    try:
        method.parent.mkdir(parents=True, exist_ok=True)
        method.write_text(written, encoding="utf-8")
        test.write_text(tested, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written: {error.strerror or error}") from error
    return method, test


def _hides(stem: str, folder: Path) -> bool:
    """Tell whether a file of this name would stand before a module of another place."""
    if stem in sys.stdlib_module_names:
        return True
    found = importlib.util.find_spec(stem)
    return found is not None and found.origin is not None and Path(found.origin).parent != folder.resolve()
