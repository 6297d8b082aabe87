"""Measure how attention's cost per token grows with length, and its memory at the longest.

python benchmarks/growth.py              # the table; writes growth.svg and growth.png beside this file
python benchmarks/growth.py --memory     # 4,096 tokens, 12 heads, batch 4: peak bytes beyond the weights
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from attention import batch, using, variant
from transformers import BertConfig, BertModel

LENGTHS = (128, 256, 512, 1024, 2048, 4096)
SPECS = ("identity", "logquant3", "prune80", "window64")
LIMIT = 1e9  # bytes beyond the weights, with the longest batch


def model(layers: int) -> Any:
    """Build a MiniLM-wide BERT for up to 4,096 tokens."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": layers, "num_attention_heads": 12}
    config = BertConfig(**shape, intermediate_size=1536, max_position_embeddings=LENGTHS[-1])
    return BertModel(config, add_pooling_layer=False).eval()


def growth(specs: tuple[str, ...], rounds: int) -> dict[str, list[float]]:
    """Return microseconds of CPU a token for every length: the median over interleaved rounds."""
    built = model(2)
    found: dict[str, list[float]] = {spec: [] for spec in specs}
    for tokens in LENGTHS:
        inputs = batch(max(1, LENGTHS[2] // tokens), tokens)
        variants = {spec: variant(built, spec, inputs) for spec in specs}
        spent: dict[str, list[float]] = {spec: [] for spec in specs}
        for number in range(rounds + 1):
            for spec in specs:
                with using(built, variants[spec]), torch.inference_mode():
                    started = time.process_time()
                    built(**inputs)
                    if number:
                        spent[spec].append(time.process_time() - started)
        for spec in specs:
            found[spec].append(1e6 * statistics.median(spent[spec]) / inputs["input_ids"].numel())
        print(f"{tokens} tokens measured", file=sys.stderr)
    return found


def table(found: dict[str, list[float]]) -> None:
    print(
        "| microseconds a token | "
        + " | ".join(f"{tokens:,}" for tokens in LENGTHS)
        + " | growth | of SDPA's |"
    )
    print("|---|" + "---|" * (len(LENGTHS) + 2))
    base = found["sdpa"][-1] / found["sdpa"][0]
    for spec, costs in found.items():
        grown = costs[-1] / costs[0]
        cells = [*(f"{cost:.0f}" for cost in costs), f"{grown:.1f}", f"{grown / base:.2f}"]
        print(f"| {spec} | " + " | ".join(cells) + " |")


def plot(found: dict[str, list[float]], stem: Path) -> None:
    """Draw cost a token over length, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "attnbench"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for spec, costs in found.items():
        axes.plot(LENGTHS, costs, marker="o", label=spec, color="black" if spec == "sdpa" else None)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(LENGTHS, [f"{tokens:,}" for tokens in LENGTHS])
    axes.set_xlabel("tokens")
    axes.set_ylabel("CPU microseconds a token, 2 layers")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(stem.with_suffix(".png"), dpi=120)


def memory(spec: str, examples: int = 4) -> None:
    """Print the peak of one pass over 4,096 tokens beyond the weights, by the memory of the process."""
    built = model(2)
    small = batch(1, 128)
    chosen = variant(built, spec, small)
    with using(built, chosen), torch.inference_mode():
        built(**small)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        built(**batch(examples, LENGTHS[-1]))
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    print(f"{spec}: {grown / 1e6:.0f} MB beyond the weights at batch {examples}, {LENGTHS[-1]:,} tokens")
    if grown > LIMIT and spec != "eager":
        raise SystemExit(f"more than {LIMIT / 1e6:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--specs", default=",".join(SPECS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", metavar="SPEC", nargs="?", const="prune80")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        memory(arguments.memory)
    else:
        found = growth(("sdpa", *arguments.specs.split(",")), arguments.rounds)
        table(found)
        plot(found, Path(__file__).with_name("growth"))


if __name__ == "__main__":
    main()
