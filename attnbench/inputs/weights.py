"""Read the weights of a checkpoint, of an adapter's folder those of both, and say which do not fit."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from attnbench.errors import UserError
from attnbench.inputs import gguf_files

HEADS = {
    "classification": "AutoModelForSequenceClassification",
    "qa": "AutoModelForQuestionAnswering",
    "masked-lm": "AutoModelForMaskedLM",
    "causal-lm": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "body": "AutoModel",
}
Shapes = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]  # of a weight: the file's, the config's
NOWHERE = "no adapter"  # a folder that is not there
SHOWN = 6


def read(
    checkpoint: Any, head: str, dtype: str, device_map: Any = None, config: Any = None
) -> tuple[Any, set[str], Shapes]:
    """Return the model, the weights that were not found, and those of another shape than its config says.

    `head` is one of HEADS; an adapter is merged into the weights. Raises UserError.
    """
    import torch
    import transformers

    base, adapter = checkpoint.base, checkpoint.adapter
    if base is not checkpoint:
        model, missing, others = read(base, head, dtype, device_map, config or checkpoint.config())
    else:
        options = {} if config is None else {"config": config}
        with checkpoint.readable(), contextlib.ExitStack() as loading:
            if checkpoint.file is not None:
                options = checkpoint.file.options()
                loading.enter_context(gguf_files.without_bar())
            model, report = getattr(transformers, HEADS[head]).from_pretrained(
                checkpoint.folder,
                dtype=getattr(torch, dtype),
                device_map=device_map,
                attn_implementation="sdpa" if _has_sdpa(config or checkpoint.config()) else "eager",
                trust_remote_code=checkpoint.trust_remote_code,
                weights_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # the caller names them
                adapter_kwargs={"subfolder": NOWHERE},  # where peft is, transformers would load it unmerged
                **options,
            )
        if checkpoint.file is not None:
            checkpoint.file.require_all(model)
        missing = set(report["missing_keys"])
        others = {name: (tuple(found), tuple(wanted)) for name, found, wanted in report["mismatched_keys"]}
    if adapter is not None:
        held = adapter.shapes()
        model = adapter.merge(model)
        missing, others = missing - held.keys(), {k: v for k, v in others.items() if k not in held}
    return model, missing, others


def mapped(checkpoint: Any, device: str, asked: str | None) -> Any:
    """Return where transformers is to put the weights, None where they are moved when they are loaded.

    Quantised ones are never moved: they are read to where they stay. Raises UserError for a quantisation that
    transformers does not know: it would read such weights as if they were plain.
    """
    told = getattr(checkpoint.config(), "quantization_config", None)
    if told is None:
        return asked
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, AutoHfQuantizer

    if not AutoHfQuantizer.supports_quant_method(told):
        kind = told.get("quant_method") if isinstance(told, dict) else told
        raise UserError(
            f"model '{checkpoint.path}' is quantised ({kind}), which transformers does not read. It knows "
            f"{', '.join(sorted(AUTO_QUANTIZER_MAPPING))}."
        )
    return asked or {"": device}


def misshapen(folder: Path, others: Shapes) -> str:
    """Say why a weight is of another shape than the config says, and the way on."""
    own = folder / "config.json"
    config = json.loads(own.read_text(encoding="utf-8")) if own.is_file() else {}
    pruned = config.get("pruned_heads") or {}
    heads = [f"off={layer}.{head}" for layer, gone in pruned.items() for head in gone]
    if heads:
        shown = ":".join(heads[:SHOWN]) + (f":… ({len(heads)} heads)" if len(heads) > SHOWN else "")
        return (
            "heads were pruned from it under transformers 4 (config.json: pruned_heads), which transformers "
            f"5 does not load. Take the whole model and remove them here: --methods heads:fixed:{shown}"
        )
    name = min(others)
    found, wanted = others[name]
    told = own.name if own.is_file() else "config"
    return f"{name} is of shape {found} in its weights, {wanted} by its {told}"


def _has_sdpa(config: Any) -> bool:
    import transformers

    names = getattr(config, "architectures", None) or []
    classes = [getattr(transformers, name, None) for name in names]
    return all(getattr(cls, "_supports_sdpa", False) for cls in classes if cls is not None)
