"""Benchmark attention-compression methods over a matrix of models and tasks.

>>> import attnbench
>>> with attnbench.apply(model, "prune80+logquant3"):  # doctest: +SKIP
...     model(**batch)

docs/plugins.md shows every public name with its signature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

# every public name, and where it is defined: module:name, or a module as a whole
_PUBLIC = {
    "HardConcrete": "attnbench.engine.learning.gates:HardConcrete",
    "Heads": "attnbench_plugins.heads:Heads",
    "Kept": "attnbench.methods.prompt:Kept",
    "Method": "attnbench.methods.protocol:Method",
    "NotApplicable": "attnbench.errors:NotApplicable",
    "Prompt": "attnbench.methods.prompt:Prompt",
    "Removal": "attnbench_plugins.heads:Removal",
    "Site": "attnbench.methods.protocol:Site",
    "Study": "attnbench.methods.study:Study",
    "UserError": "attnbench.errors:UserError",
    "View": "attnbench.methods.views:View",
    "apply": "attnbench.engine.learning.fitted:apply",
    "attention": "attnbench.studies.attended:attention",
    "by_head": "attnbench.methods.study:by_head",
    "checkpoint": "attnbench.inputs.models:checkpoint",
    "contributions": "attnbench.engine.relevance.contributions:contributions",
    "discover": "attnbench.engine.places.sites:discover",
    "expand": "attnbench.methods.expand:expand",
    "final_gate": "attnbench.engine.learning.gates:final_gate",
    "format": "attnbench.methods.spec:format",
    "head_sensitivity": "attnbench.engine.learning.gates:head_sensitivity",
    "hookimpl": "attnbench.methods.hooks:hookimpl",
    "importance": "attnbench.studies.importance",
    "kernels": "attnbench.engine.serving.kernels",
    "layer_of": "attnbench.engine.serving.dispatch:layer_of",
    "openness": "attnbench.engine.learning.gates:openness",
    "look": "attnbench.boards.looked:look",
    "own_weights": "attnbench.engine.learning.training:own_weights",
    "parse": "attnbench.methods.spec:parse",
    "plugins": "attnbench.methods.plugins",
    "probing": "attnbench.studies.probes.probing",
    "prompts": "attnbench.engine.serving.prompts:prompts",
    "rank_agreement": "attnbench.statistics.rank_agreement:rank_agreement",
    "realize": "attnbench.engine.realised.removal:realize",
    "relevance": "attnbench.engine.relevance.relevance:relevance",
    "run": "attnbench.boards.result:run",
    "sidecar": "attnbench.engine.realised.sidecar",
    "sites": "attnbench.engine.places.sites",
    "testing": "attnbench.testing",
    "top_logit": "attnbench.engine.relevance.explained:top_logit",
    "train": "attnbench.engine.learning.training:train",
    "transform": "attnbench.engine.serving.attention:transform",
    "watch": "attnbench.engine.serving.attention:watch",
    "with_weights": "attnbench.engine.learning.training:with_weights",
    "without_heads": "attnbench.engine.realised.removal:without_heads",
}

__all__ = [*_PUBLIC]

if TYPE_CHECKING:
    from attnbench import testing as testing
    from attnbench.boards.looked import look as look
    from attnbench.boards.result import run as run
    from attnbench.engine.learning.fitted import apply as apply
    from attnbench.engine.learning.gates import HardConcrete as HardConcrete
    from attnbench.engine.learning.gates import final_gate as final_gate
    from attnbench.engine.learning.gates import head_sensitivity as head_sensitivity
    from attnbench.engine.learning.gates import openness as openness
    from attnbench.engine.learning.training import own_weights as own_weights
    from attnbench.engine.learning.training import train as train
    from attnbench.engine.learning.training import with_weights as with_weights
    from attnbench.engine.places import sites as sites
    from attnbench.engine.places.sites import discover as discover
    from attnbench.engine.realised import sidecar as sidecar
    from attnbench.engine.realised.removal import realize as realize
    from attnbench.engine.realised.removal import without_heads as without_heads
    from attnbench.engine.relevance.contributions import contributions as contributions
    from attnbench.engine.relevance.explained import top_logit as top_logit
    from attnbench.engine.relevance.relevance import relevance as relevance
    from attnbench.engine.serving import kernels as kernels
    from attnbench.engine.serving.attention import transform as transform
    from attnbench.engine.serving.attention import watch as watch
    from attnbench.engine.serving.dispatch import layer_of as layer_of
    from attnbench.engine.serving.prompts import prompts as prompts
    from attnbench.errors import NotApplicable as NotApplicable
    from attnbench.errors import UserError as UserError
    from attnbench.inputs.models import checkpoint as checkpoint
    from attnbench.methods import plugins as plugins
    from attnbench.methods.expand import expand as expand
    from attnbench.methods.hooks import hookimpl as hookimpl
    from attnbench.methods.prompt import Kept as Kept
    from attnbench.methods.prompt import Prompt as Prompt
    from attnbench.methods.protocol import Method as Method
    from attnbench.methods.protocol import Site as Site
    from attnbench.methods.spec import format as format
    from attnbench.methods.spec import parse as parse
    from attnbench.methods.study import Study as Study
    from attnbench.methods.study import by_head as by_head
    from attnbench.methods.views import View as View
    from attnbench.statistics.rank_agreement import rank_agreement as rank_agreement
    from attnbench.studies import importance as importance
    from attnbench.studies.attended import attention as attention
    from attnbench.studies.probes import probing as probing
    from attnbench_plugins.heads import Heads as Heads
    from attnbench_plugins.heads import Removal as Removal
else:

    def __getattr__(name: str) -> object:
        # torch is imported only by what needs it: `attnbench --help` answers at once
        import importlib

        if name not in _PUBLIC:
            from attnbench.errors import near

            raise AttributeError(
                f"module 'attnbench' has no attribute '{name}'.{near(name, _PUBLIC)}", name=name
            )
        module, _, inner = _PUBLIC[name].partition(":")
        found = importlib.import_module(module)
        return getattr(found, inner) if inner else found


def __dir__() -> list[str]:
    return sorted([*_PUBLIC, *(name for name in globals() if name.startswith("__"))])
