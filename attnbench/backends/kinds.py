"""Which kind of checkpoint a config describes: encoder, causal or seq2seq."""

from __future__ import annotations

from typing import Any

ENCODER_HEADS = (
    "ForSequenceClassification",
    "ForQuestionAnswering",
    "ForTokenClassification",
    "ForMultipleChoice",
    "ForMaskedLM",
)


def kind(config: Any) -> str:
    """Tell what a checkpoint is by its architecture, else by the models that transformers has for its config.

    A model with a masked-LM class is an encoder, though lm-eval would load it as a decoder: attending to both
    sides it answers plausible nonsense.
    """
    from transformers.models.auto import modeling_auto

    architectures = [str(name) for name in getattr(config, "architectures", None) or []]
    if any(name.endswith(ENCODER_HEADS) for name in architectures):
        return "encoder"
    if getattr(config, "is_encoder_decoder", False):
        return "seq2seq"
    if config.model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "causal" if getattr(config, "is_decoder", False) else "encoder"
    known = config.model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return "causal" if known or any(name.endswith("ForCausalLM") for name in architectures) else "encoder"
