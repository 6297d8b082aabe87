"""Measure what attention methods cost: CPU time and memory, as ratios to SDPA and eager in the same run.

python benchmarks/attention.py                 # the table: time
python benchmarks/attention.py --memory        # peak attention memory at (8, 512)
python benchmarks/attention.py --model gpt2    # a causal model, or t5: encoder, decoder and cross-attention
python benchmarks/attention.py --specs identity,prune80,mask90 --rounds 5
python benchmarks/attention.py --fit mask90,heads50:gradient    # a fit against the passes it needs
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2Model,
    T5Config,
    T5Model,
)

from attnbench import Method, Site, apply, parse
from attnbench.engine.places.routing import implementation
from attnbench.methods.protocol import needs_fit

LARGE = (8, 512)
SHAPES = ((8, 128), (32, 128), (8, 320))
SPECS = ("identity", "logquant3", "threshold0.001", "prune80")


class Identity(Method):
    """Change nothing, the long way round: the price of having the probabilities in hand."""

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        return probs


SHARP = ("query", "key", "c_attn", ".q", ".k")


def model(name: str = "bert") -> Any:
    """Build a random model: a MiniLM-sized BERT, a GPT-2 or a T5-small, queries and keys scaled up.

    Scores spread by about 3.
    """
    torch.manual_seed(0)
    if name == "bert":
        shape: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12}
        built: Any = BertModel(BertConfig(**shape, intermediate_size=1536), add_pooling_layer=False)
    elif name == "gpt2":
        built = GPT2Model(GPT2Config(attn_pdrop=0.0, use_cache=False))
    else:
        built = T5Model(T5Config(d_model=512, d_ff=2048, num_layers=6, num_heads=8, use_cache=False))
    factor = {"bert": 4.5, "gpt2": 3.0, "t5": 1.5}[name]
    with torch.no_grad():
        for path, weight in built.named_parameters():
            if weight.dim() == 2 and any(f"{part}." in path for part in SHARP):
                weight.mul_(factor)
    return built.eval()


def batch(examples: int, tokens: int, padding: float = 0.0, pair: bool = False) -> dict[str, Tensor]:
    """Make random token ids; with `padding`, lengths spread evenly down to that share of padding.

    The decoder beside an encoder gets half as many.
    """
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(1000, 30000, (examples, tokens), generator=draw)
    lengths = (tokens * (1 - padding * torch.linspace(0, 1, examples))).long()
    made = {"input_ids": ids, "attention_mask": (torch.arange(tokens) < lengths[:, None]).long()}
    return made | ({"decoder_input_ids": ids[:, : tokens // 2]} if pair else {})


Variant = str | tuple[Method, ...]


def variant(built: Any, spec: str, inputs: dict[str, Tensor]) -> Variant:
    """Read a spec, and fit it to the inputs themselves where it learns."""
    if spec in ("sdpa", "eager"):
        return spec
    methods = (Identity(),) if spec == "identity" else parse(spec)
    for position, method in enumerate(methods):
        if needs_fit(method):
            with apply(built, *methods[:position]):
                method.fit(built, [inputs])
    return methods


def using(built: Any, chosen: Variant) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which a forward pass is the variant's."""
    return implementation(built, chosen) if isinstance(chosen, str) else apply(built, *chosen)


def times(built: Any, inputs: dict[str, Tensor], specs: tuple[str, ...], rounds: int) -> dict[str, float]:
    """Return each variant's median over rounds of CPU seconds a pass, divided by SDPA's around it.

    A pass of SDPA stands before and after every variant, and their mean is its base: a neighbour on the
    machine that slows seconds, not milliseconds, slows both.
    """
    variants = {spec: variant(built, spec, inputs) for spec in ("sdpa", *specs)}

    def seconds(spec: str) -> float:
        with using(built, variants[spec]), torch.inference_mode():
            started = time.process_time()
            built(**inputs)
            return time.process_time() - started

    for spec in variants:  # warms up
        seconds(spec)
    ratios: dict[str, list[float]] = {spec: [] for spec in specs}
    base = [seconds("sdpa")]
    for _ in range(rounds):
        for spec in specs:
            own = seconds(spec)
            base.append(seconds("sdpa"))
            ratios[spec].append(own / statistics.fmean(base[-2:]))
    medians = {spec: statistics.median(own) for spec, own in ratios.items()}
    return {"sdpa": statistics.median(base) * 1000, **medians}


def time_table(name: str, specs: tuple[str, ...], rounds: int, padding: float) -> None:
    torch.set_num_threads(1)
    built, pair = model(name), name == "t5"
    found = [times(built, batch(*shape, padding, pair), ("eager", *specs), rounds) for shape in SHAPES]
    print("| variant | " + " | ".join(f"batch {b}, {t} tokens" for b, t in SHAPES) + " |")
    print("|---|" + "---|" * len(SHAPES))
    for spec in found[0]:
        cells = [f"{ratios[spec]:.0f} ms" if spec == "sdpa" else f"{ratios[spec]:.2f}" for ratios in found]
        print(f"| {spec} | " + " | ".join(cells) + " |")


def fit_table(specs: tuple[str, ...], rounds: int) -> None:
    """Print what a fit on four batches costs, divided by the SDPA passes over them that it needs.

    A backward pass goes down to the embeddings and no other weight: no method needs more.
    """
    torch.set_num_threads(1)
    body = model()
    built: Any = BertForSequenceClassification(body.config).eval()
    built.bert.load_state_dict(body.state_dict(), strict=False)
    embeddings = [built.get_input_embeddings().weight]

    def seconds(work: Callable[[], object]) -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    print("| fit | needs | " + " | ".join(f"batch {b}, {t} tokens" for b, t in SHAPES[::2]) + " |")
    print("|---|---|" + "---|" * len(SHAPES[::2]))
    for spec in specs:
        backward, cells = spec.endswith(("gradient", "confidence")), []
        for shape in SHAPES[::2]:
            inputs = batch(*shape) | {"labels": torch.zeros(shape[0], dtype=torch.long)}

            def passes(inputs: dict[str, Tensor] = inputs, backward: bool = backward) -> None:
                for _ in range(4):
                    with implementation(built, "sdpa"), torch.set_grad_enabled(backward):
                        loss = built(**inputs).loss
                        if backward:
                            torch.autograd.grad(loss, embeddings)

            def fit(inputs: dict[str, Tensor] = inputs, spec: str = spec) -> None:
                parse(spec)[0].fit(built, [inputs] * 4)

            fit()
            cells.append(statistics.median(seconds(fit) / seconds(passes) for _ in range(rounds)))
        needs = "forward and backward" if backward else "forward"
        print(f"| {spec} | {needs} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")


def peak(built: Any, spec: str, examples: int, tokens: int) -> int:
    """Return the most bytes that one attention module holds at a time, by torch's allocator events."""
    module: Any = built.get_submodule("encoder.layer.0.attention.self")
    hidden = torch.randn(examples, tokens, built.config.hidden_size)
    profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    chosen = variant(built, spec, batch(examples, tokens))
    with using(built, chosen), torch.inference_mode(), profiler as profiled:
        module(hidden)
    level = highest = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            highest = max(highest, level)
    return highest


def memory_table(specs: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    built = model()
    eager = peak(built, "eager", *LARGE)
    print(f"| variant | MB at batch {LARGE[0]}, {LARGE[1]} tokens | of eager |\n|---|---|---|")
    for spec in ("eager", "sdpa", *specs):
        held = peak(built, spec, *LARGE)
        print(f"| {spec} | {held / 1e6:.1f} | {held / eager:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--specs", default=",".join(SPECS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--padding", type=float, default=0.0, help="share of padding in the shortest example")
    parser.add_argument("--model", choices=("bert", "gpt2", "t5"), default="bert")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--fit", metavar="SPECS", help="methods that learn")
    arguments = parser.parse_args()
    specs = tuple(arguments.specs.split(","))
    if arguments.fit:
        fit_table(tuple(arguments.fit.split(",")), arguments.rounds)
    elif arguments.memory:
        memory_table(specs)
    else:
        time_table(arguments.model, specs, arguments.rounds, arguments.padding)


if __name__ == "__main__":
    main()
