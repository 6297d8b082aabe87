"""Tiny random models of five architectures, built in milliseconds, and data for them."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

WIDTH, HEADS, LAYERS = 32, 4, 2
PAD, BOS, EOS, PLAIN, VOCABULARY = 0, 1, 2, 4, 48  # tokens from PLAIN on mean nothing special
LONGEST = 512
WINDOW = 6  # tokens
QUERY_KEY = re.compile(r"\.(query|key|q_proj|k_proj|q|k|c_attn)\.weight$")
Side = Literal["left", "right"]


@dataclass(frozen=True)
class Sample:
    """Tokens, and for an encoder-decoder model those of the decoder."""

    tokens: tuple[int, ...]
    target: tuple[int, ...] = ()


@dataclass(frozen=True)
class Family:
    """How an architecture is built and what it takes: `sides` are where it may be padded without its help."""

    make: Callable[[], Any]
    causal: bool
    seq2seq: bool
    sides: tuple[Side, ...]

    @property
    def kind(self) -> str:
        return "encoder-decoders" if self.seq2seq else "decoders" if self.causal else "encoders"


def _bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    options: dict[str, Any] = dict(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=64, max_position_embeddings=LONGEST, pad_token_id=PAD, num_labels=2,
        problem_type="single_label_classification",
    )  # fmt: skip
    return BertForSequenceClassification(BertConfig(**options))


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    options: dict[str, Any] = dict(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=LONGEST,
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, tie_word_embeddings=False,
    )  # fmt: skip
    return GPT2LMHeadModel(GPT2Config(**options))


def _llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    options: dict[str, Any] = dict(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=2, intermediate_size=64, max_position_embeddings=LONGEST,
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
    )  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**options))


def sliding(model: Any) -> Any:
    """Return a Mistral with a tiny Llama's weights, which sees its last few tokens only."""
    from transformers import MistralConfig, MistralForCausalLM

    given = {
        key: value for key, value in model.config.to_dict().items() if key not in ("model_type", "dtype")
    }
    made = MistralForCausalLM(MistralConfig(**given, sliding_window=WINDOW)).eval().to(model.device)
    made.load_state_dict(model.state_dict())
    made.generation_config = model.generation_config
    return made


def _t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    options: dict[str, Any] = dict(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=WIDTH // HEADS, num_layers=LAYERS, num_heads=HEADS,
        d_ff=64, pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=BOS, tie_word_embeddings=False,
    )  # fmt: skip
    return T5ForConditionalGeneration(T5Config(**options))


def _bart() -> Any:
    from transformers import BartConfig, BartForConditionalGeneration

    options: dict[str, Any] = dict(
        vocab_size=VOCABULARY, d_model=WIDTH, encoder_layers=LAYERS, decoder_layers=LAYERS,
        encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, encoder_ffn_dim=64, decoder_ffn_dim=64,
        max_position_embeddings=LONGEST, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        decoder_start_token_id=BOS, forced_eos_token_id=None,
    )  # fmt: skip
    return BartForConditionalGeneration(BartConfig(**options))


FAMILIES = {
    "bert": Family(_bert, causal=False, seq2seq=False, sides=("right", "left")),
    "gpt2": Family(_gpt2, causal=True, seq2seq=False, sides=("right", "left")),
    "llama": Family(_llama, causal=True, seq2seq=False, sides=("right", "left")),
    "t5": Family(_t5, causal=True, seq2seq=True, sides=("right", "left")),
    "bart": Family(
        _bart, causal=True, seq2seq=True, sides=("right",)
    ),  # learned positions, counted from the pad
}


def build(name: str) -> Any:
    """Return a fresh copy of a tiny model in eval mode, with attention neither flat nor hard."""
    return copy.deepcopy(_template(name))


@functools.cache
def _template(name: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = FAMILIES[name].make().eval()
        if FAMILIES[name].causal:  # a tied head repeats the token it reads
            model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))
            model.loss_type = None if FAMILIES[name].seq2seq else "ForCausalLM"
        draw = torch.Generator().manual_seed(1)
        for path, weight in model.named_parameters():
            if weight.dim() == 2 and weight.numel() > 0:
                with torch.no_grad():
                    weight.copy_(torch.randn(weight.shape, generator=draw) * _spread(model, path, weight))
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        generation.eos_token_id = generation.forced_eos_token_id = None  # every example goes on to the end
        generation.pad_token_id = PAD
    return model


def _spread(model: Any, path: str, weight: Tensor) -> float:
    module = model.get_submodule(path.rpartition(".")[0])
    if isinstance(module, nn.Embedding):
        return 1.0
    inputs = (
        WIDTH
        if QUERY_KEY.search(path)
        else (weight.shape[1] if isinstance(module, nn.Linear) else weight.shape[0])
    )
    sharp = 1.5 if QUERY_KEY.search(path) else 1.0
    unscaled = (WIDTH // HEADS) ** -0.25 if model.config.model_type == "t5" and sharp > 1 else 1.0
    return sharp * unscaled * inputs**-0.5


def samples(name: str, lengths: Sequence[int], seed: int = 0) -> list[Sample]:
    """Draw samples of these numbers of tokens; a decoder's target is two thirds as long."""
    draw = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(PLAIN, VOCABULARY, (count,), generator=draw).tolist())

    seq2seq = FAMILIES[name].seq2seq
    return [Sample(tokens(length), tokens(max(1, 2 * length // 3)) if seq2seq else ()) for length in lengths]


def batch(
    name: str, chosen: Sequence[Sample], side: Side = "right", device: str = "cpu", wider: int = 0
) -> dict[str, Tensor]:
    """Pad samples to one batch of model inputs; positions count from the first token where they are taken."""
    ids, mask = _padded([sample.tokens for sample in chosen], side, wider)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if FAMILIES[name].seq2seq:
        # nobody pads the start of a decoder: it is where it starts
        targets = _padded([sample.target for sample in chosen], "right", wider)
        inputs["decoder_input_ids"], inputs["decoder_attention_mask"] = targets
    else:
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return {key: value.to(device) for key, value in inputs.items()}


def _padded(rows: Sequence[Sequence[int]], side: Side, wider: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows)) + wider
    ids, mask = torch.full((len(rows), width), PAD), torch.zeros(len(rows), width, dtype=torch.long)
    for at, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[at, place], mask[at, place] = torch.tensor(row), 1
    return ids, mask


def real(name: str, inputs: dict[str, Tensor]) -> Tensor:
    """Tell which of the output's tokens are no padding: (batch, tokens)."""
    return inputs["decoder_attention_mask" if FAMILIES[name].seq2seq else "attention_mask"].bool()


def labelled(
    name: str, seed: int = 0, device: str = "cpu", sizes: Sequence[int] = (4, 4, 4), wider: int = 0
) -> list[dict[str, Tensor]]:
    """Make small batches of 12 samples with labels, as a task's calibration split gives them.

    `sizes` are the batches', `wider` is by how much more than needed they are padded.
    """
    chosen = [s for part in range(3) for s in samples(name, (12, 12, 9, 6), seed=100 + 10 * seed + part)]
    made, start = [], 0
    for size in sizes:
        part, start = chosen[start : start + size], start + size
        inputs = batch(name, part, device=device, wider=wider)
        if FAMILIES[name].seq2seq:
            inputs["labels"] = inputs["decoder_input_ids"].masked_fill(
                inputs["decoder_attention_mask"] == 0, -100
            )
        elif FAMILIES[name].causal:
            inputs["labels"] = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        else:
            inputs["labels"] = torch.tensor([sum(s.tokens) % 2 for s in part], device=device)
        made.append(inputs)
    return made


def outputs(model: Any, inputs: dict[str, Tensor], caching: bool = False) -> Tensor:
    """Return what the body gives each token (batch, tokens, ...): of the decoder where there is one."""
    more = {"use_cache": caching} if model.config.model_type != "bert" else {}
    return model.base_model(**inputs, **more, return_dict=True)[0]
