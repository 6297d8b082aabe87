"""Which architectures are measured rightly, as a markdown table: python benchmarks/architectures.py

Tiny random models (those of the tests), six texts of 2 to 19 words. `gap` is what the guard sees: the largest
difference of a text's outputs alone from those beside a longer one, relative to the largest output. `from
plain` is the largest difference of what is measured from plain transformers on each text alone. Sites are
all attentions of a forward pass; layers are numbered as in the model's own lists. Does not depend on load.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import transformers
from architectures import ARCHITECTURES, asked, tiny

from attnbench.engine.places import sites, softmax
from attnbench.errors import UserError


def main() -> None:
    transformers.logging.set_verbosity_error()
    print("| architecture | class | padded | gap | from plain | served by | sites | layers |")
    print("|---|---|---|---|---|---|---|---|")
    for name, architecture in ARCHITECTURES.items():
        model = tiny(name)
        try:
            found = sites.discover(model)
        except UserError as refusal:
            said = (
                str(refusal)
                .removeprefix(architecture.model)
                .removesuffix(": this architecture is not supported.")
            )
            print(f"| {name} | {architecture.model} | – | – | – | refused:{said} | | |")
            continue
        answers = asked(name, model)
        side = "not: one text at a time" if answers.alone else f"on the {answers.side}"
        layers = {
            kind: ", ".join(str(site.layer) for site in found if site.kind == kind)
            for kind in dict.fromkeys(site.kind for site in found)
        }
        print(
            f"| {name} | {architecture.model} | {side} | {answers.gap:.1e} | {answers.difference:.1e} | "
            f"{'softmax tap' if softmax.needed(model) else 'interface'} | {len(found)} | "
            f"{'; '.join(f'{kind} {numbers}' for kind, numbers in layers.items())} |"
        )


if __name__ == "__main__":
    main()
