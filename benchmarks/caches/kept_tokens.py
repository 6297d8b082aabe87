"""Compare the tokens of a prompt that our evicting methods keep with those that kvpress keeps.

python benchmarks/caches/kept_tokens.py ours --model MODEL --file kept.npz          # beside attnbench
python benchmarks/caches/kept_tokens.py theirs --model MODEL --file kept.npz       # beside kvpress: the table

One process a side, because both do not fit beside one transformers: the first writes prompts and what is kept
to a file, the second keeps its own and compares. Prompts are those of `needles`, question and beginning of
the answer included, cut on the left to a multiple of 8 tokens: there both count the same budget at 50 and
75 %. In float32.

`heads`: key-value heads of all layers and prompts that keep other tokens, of how many. `tokens`: kept by us
and not by them, of all that we keep. `others`: of these, those that kvpress keeps in any case, as it says.
`margin`: of the rest, the largest difference between the scores, theirs, of a token that we keep and of one
that they keep instead, relative to the score: what is far under 1e-4 is rounding, 0 a tie, and none where the
tokens of one side are all among the other's.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

SPECS = (
    "streamingllm", "tova", "knorm", "expected", "snapkv", "snapkv:budget=safeguard",
    "expected:budget=safeguard", "snapkv:budget=pyramidkv", "keydiff", "snapkv:critical",
)  # fmt: skip
MULTIPLE = 8
WINDOW = 64  # of SnapKV, in both; ours is half of the budget at most, which theirs is told
LAST = ("tova",)  # what kvpress keeps in any case, and we by its score


def load(path: str) -> Any:
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def ours(options: argparse.Namespace) -> None:
    from attnbench import apply
    from attnbench.backends.long.dataset import counting, documents
    from attnbench.engine.serving.turns import HELD
    from attnbench.errors import UserError

    model, tokenizer = load(options.model), AutoTokenizer.from_pretrained(options.model)
    found: dict[str, np.ndarray] = {}
    docs = documents("needles", counting(tokenizer), "validation", options.samples, options.length)
    for number, doc in enumerate(docs):
        ids = tokenizer(doc["context"] + doc["question"] + doc["prefix"], return_tensors="pt")["input_ids"]
        ids = ids[:, ids.shape[1] % MULTIPLE :]
        found[f"ids {number}"] = ids.numpy()
        for spec in [f"evict{percent}:{each}" for percent in options.percents for each in options.specs]:
            try:
                with torch.no_grad(), apply(model, spec):
                    cache = model(ids, use_cache=True, logits_to_keep=1).past_key_values
            except UserError as error:
                print(f"{spec}: {error}")
                continue
            left = getattr(cache, HELD).left.values()
            found[f"{spec} {number}"] = torch.stack([~each[0].gone for each in left]).numpy()
    np.savez_compressed(options.file, **found)
    print(f"attnbench beside transformers {transformers.__version__}, torch {torch.__version__}")


def press_of(spec: str, tokens: int) -> Any:
    """Return what kvpress calls a spec, and the press whose scores decide."""
    import kvpress

    head, name, *rest = spec.split(":")
    ratio = int(head.removeprefix("evict")) / 100
    window = min(WINDOW, (tokens - int(tokens * ratio)) // 2)
    plain = {
        "streamingllm": kvpress.StreamingLLMPress, "tova": kvpress.TOVAPress, "knorm": kvpress.KnormPress,
        "expected": kvpress.ExpectedAttentionPress,
        "snapkv": functools.partial(kvpress.SnapKVPress, window_size=window),
        "keydiff": kvpress.KeyDiffPress,
    }[name](ratio)  # fmt: skip
    if rest == ["budget=safeguard"]:
        return kvpress.AdaKVPress(plain), plain
    if rest == ["budget=pyramidkv"]:
        plain = kvpress.PyramidKVPress(ratio, window_size=window)
    if rest == ["critical"]:
        plain = kvpress.CriticalKVPress(plain)
    return plain, plain


def kept_by(model: Any, ids: torch.Tensor, whole: list[torch.Tensor], spec: str) -> tuple[Any, Any]:
    """Return the tokens that kvpress keeps and its scores (layers, key-value heads, tokens)."""
    press, scorer = press_of(spec, ids.shape[1])
    scores: list[torch.Tensor] = []
    score: Callable[..., torch.Tensor] = scorer.score
    scorer.score = lambda *args, **kwargs: scores.append(score(*args, **kwargs)) or scores[-1].clone()
    cache = transformers.DynamicCache()
    with torch.no_grad(), press(model):
        model(ids, past_key_values=cache, logits_to_keep=1)
    kept = []
    for layer, keys in zip(model.model.layers, whole, strict=True):
        masked = getattr(layer.self_attn, "masked_key_indices", None)
        held = cache.layers[layer.self_attn.layer_idx].keys[0]
        if masked is not None:
            stays = torch.ones(keys.shape[:2], dtype=torch.bool)
            stays[masked[1], masked[2]] = False
        else:  # a key is known by its values, and no two are the same
            stays = (keys[:, :, None] == held[:, None]).all(-1).any(-1)
            assert int(stays.sum()) == held.shape[0] * held.shape[1]
        kept.append(stays)
    return torch.stack(kept).numpy(), torch.stack([each[0] for each in scores]).double().numpy()


def theirs(options: argparse.Namespace) -> None:
    import kvpress  # noqa: F401  (wraps attention, before any model is made)

    model, file = load(options.model), np.load(options.file)
    prompts = [torch.from_numpy(file[f"ids {number}"]) for number in range(options.samples)]
    whole = []
    for ids in prompts:
        with torch.no_grad():
            cache = model(ids, use_cache=True, logits_to_keep=1).past_key_values
        whole.append([layer.keys[0] for layer in cache.layers])
    print("| method | kept a head, ours | theirs | heads | tokens | others | margin |")
    print("|---|---|---|---|---|---|---|")
    for spec in dict.fromkeys(name.rsplit(" ", 1)[0] for name in file.files if name.startswith("evict")):
        heads, tokens, total, forced, margin, unlike, sizes = 0, 0, 0, 0, -1.0, 0, [[], []]
        for number, ids in enumerate(prompts):
            mine = file[f"{spec} {number}"]
            yours, scores = kept_by(model, ids, whole[number], spec)
            for size, table in zip(sizes, (mine, yours), strict=True):
                size += table.sum(-1).flatten().tolist()
            for a, b, s in zip(*(x.reshape(-1, x.shape[-1]) for x in (mine, yours, scores)), strict=True):
                more, less = a & ~b, b & ~a
                heads += bool(more.any() or less.any())
                tokens, total, unlike = tokens + int(more.sum()), total + int(a.sum()), unlike + 1
                if spec.split(":")[1] in LAST and less[-1]:
                    forced, less[-1] = forced + 1, False
                    more[np.where(more, s, np.inf).argmin()] = False  # what went for it
                if more.any() and less.any():
                    margin = max(margin, (s[less].max() - s[more].min()) / abs(s[less].max()))
        spans = [f"{min(size)} to {max(size)}" if len({*size}) > 1 else str(size[0]) for size in sizes]
        print(
            f"| {spec} | {spans[0]} | {spans[1]} | {heads} of {unlike:,} | {tokens:,} of {total:,} | "
            f"{forced or ''} | {f'{margin:.1e}' if margin >= 0 else ''} |",
            flush=True,
        )
    lengths = sorted({ids.shape[1] for ids in prompts})
    print(f"\n{len(prompts)} prompts of {lengths} tokens; transformers {transformers.__version__}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("side", choices=["ours", "theirs"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--file", default="kept.npz")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--specs", nargs="+", default=SPECS)
    parser.add_argument("--percents", type=int, nargs="+", default=[50, 75])
    options = parser.parse_args()
    {"ours": ours, "theirs": theirs}[options.side](options)


if __name__ == "__main__":
    main()
