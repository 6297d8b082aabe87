"""Tiny random models of every kind of attention that there is, reached or not, with a head each."""

from __future__ import annotations

import functools
import random
from typing import Any, NamedTuple

import torch
import transformers
from lm_eval.api.instance import Instance
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedModel

from attnbench.backends import alone
from attnbench.backends.causal import padding as causal_padding
from attnbench.backends.causal.model import CausalLM
from attnbench.backends.encoders import padding
from attnbench.backends.encoders.model import EncoderLM
from attnbench.backends.translation.model import Seq2SeqLM

BASE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4}
OPT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "ffn_dim": 48,
    "word_embed_proj_dim": 32,
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4}
PAIR = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "d_model": 32}
PAIR |= {"encoder_layers": 3, "decoder_layers": 2, "decoder_ffn_dim": 48}
GROUPED = BASE | {"num_key_value_heads": 2}
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
MOBILE = {"embedding_size": 16, "intra_bottleneck_size": 32, "hidden_size": 64, "num_feedforward_networks": 1}
BIG = {
    "block_size": 64,
    "num_random_blocks": 3,
    "max_position_embeddings": 1024,
    "attention_type": "block_sparse",
}
HYBRID = {
    "num_hidden_layers": 6, "layer_types": ["linear_attention", "linear_attention", "full_attention"] * 2,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
}  # fmt: skip
LFM = {"num_hidden_layers": 6, "layer_types": ["conv", "conv", "full_attention"] * 2}
BAMBA = {
    "num_hidden_layers": 6, "attn_layer_indices": [2, 5], "mamba_n_heads": 4, "mamba_d_head": 16,
    "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 8,
}  # fmt: skip
ZAMBA = {
    "num_hidden_layers": 6, "layers_block_type": ["mamba", "mamba", "hybrid"] * 2, "n_mamba_heads": 4,
    "mamba_d_state": 8, "mamba_ngroups": 1, "chunk_size": 8, "num_mem_blocks": 1, "attention_head_dim": 16,
    "mamba_headdim": 16, "adapter_rank": 4, "num_key_value_heads": 4,
}  # fmt: skip
JAMBA = {
    "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False,
    "num_experts": 2, "mamba_d_state": 4, "mamba_dt_rank": 4,
}  # fmt: skip
FUNNEL = {
    "d_model": 32,
    "n_head": 4,
    "d_head": 8,
    "d_inner": 48,
    "block_sizes": [2, 2],
    "num_decoder_layers": 1,
}
LONG = {"attention_window": 8, "max_position_embeddings": 300}
FALCON = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
SINKS = {"head_dim": 8, "num_local_experts": 4, "sliding_window": 5}
PEGASUS_X = PAIR | {"block_size": 4, "num_global_tokens": 2}
BLOCKS = {"block_size": 4, "num_random_blocks": 1}
BIGBIRD_PEGASUS = "BigBirdPegasusForConditionalGeneration"
SEQ = "ForSequenceClassification"


class Architecture(NamedTuple):
    """A model's class and settings, its layers of each kind, or why it is refused."""

    model: str
    settings: dict[str, Any]
    encoder: str = ""
    decoder: str = ""
    cross: str = ""
    refused: str = ""


def encoder(name: str, settings: dict[str, Any], layers: str = "012") -> Architecture:
    return Architecture(f"{name}{SEQ}", settings, encoder=layers)


def decoder(name: str, settings: dict[str, Any], layers: str = "012") -> Architecture:
    return Architecture(name, settings, decoder=layers)


def pair(name: str, settings: dict[str, Any], refused: str = "") -> Architecture:
    return Architecture(name, settings, "012", "01", "01", refused)


ARCHITECTURES: dict[str, Architecture] = {
    "bert": encoder("Bert", BASE),
    "roberta": encoder("Roberta", BASE),
    "electra": encoder("Electra", BASE | {"embedding_size": 16}),
    "distilbert": encoder("DistilBert", {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48}),
    "albert": encoder("Albert", BASE | {"embedding_size": 16}),
    "mobilebert": encoder("MobileBert", BASE | MOBILE),
    "modernbert": encoder("ModernBert", BASE | {"local_attention": 4}),
    "xlnet": encoder("XLNet", {"d_model": 32, "n_layer": 3, "n_head": 4, "d_inner": 48}),
    "deberta": encoder("Deberta", BASE | DEBERTA),
    "deberta-v2": encoder("DebertaV2", BASE | DEBERTA),
    "mpnet": encoder("MPNet", BASE),
    "bigbird-full": encoder("BigBird", BASE | {"attention_type": "original_full"}),
    "bigbird-sparse": Architecture(f"BigBird{SEQ}", BASE | BIG, refused="exchanges its attention"),
    "longformer": Architecture(f"Longformer{SEQ}", BASE | LONG, refused="keeps its attention to itself"),
    "funnel": Architecture(f"Funnel{SEQ}", FUNNEL, refused="keeps its attention to itself"),
    "gpt2": decoder("GPT2LMHeadModel", GPT),
    "gpt-neo": decoder("GPTNeoForCausalLM", {
        "hidden_size": 32, "num_layers": 3, "num_heads": 4, "window_size": 5,
        "attention_types": [[["global", "local", "global"], 1]],
    }),
    "gpt-j": decoder("GPTJForCausalLM", GPT | {"rotary_dim": 4}),
    "gpt-neox": decoder("GPTNeoXForCausalLM", BASE),
    "bloom": decoder("BloomForCausalLM", {"hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "falcon": decoder("FalconForCausalLM", FALCON),
    "opt": decoder("OPTForCausalLM", OPT),
    "llama": decoder("LlamaForCausalLM", GROUPED),
    "mistral": decoder("MistralForCausalLM", GROUPED | {"sliding_window": 5}),
    "mixtral": decoder("MixtralForCausalLM", GROUPED | {"num_local_experts": 8}),
    "gemma2": decoder("Gemma2ForCausalLM", GROUPED | {"head_dim": 8, "sliding_window": 5}),
    "qwen2": decoder("Qwen2ForCausalLM", GROUPED),
    "qwen3": decoder("Qwen3ForCausalLM", GROUPED | {"head_dim": 8}),
    "gpt-oss": Architecture("GptOssForCausalLM", GROUPED | SINKS, refused="attends with s_aux"),
    "qwen3-next": decoder("Qwen3NextForCausalLM", GROUPED | HYBRID, "25"),
    "lfm2": decoder("Lfm2ForCausalLM", GROUPED | LFM, "25"),
    "bamba": decoder("BambaForCausalLM", GROUPED | BAMBA, "25"),
    "zamba2": decoder("Zamba2ForCausalLM", BASE | ZAMBA, "25"),
    "jamba": decoder("JambaForCausalLM", GROUPED | JAMBA, "13"),
    "diffllama": decoder("DiffLlamaForCausalLM", GROUPED | {"attention_dropout": 0.0}),
    "doge": decoder("DogeForCausalLM", GROUPED | {"head_dim": 8}),
    "bart-decoder": Architecture("BartForCausalLM", PAIR, decoder="01"),
    "t5": pair("T5ForConditionalGeneration", T5),
    "bart": pair("BartForConditionalGeneration", PAIR),
    "bart-classifier": pair(f"Bart{SEQ}", PAIR | {"num_labels": 2}),
    "t5-classifier": pair(f"T5{SEQ}", T5),
    "mbart": pair("MBartForConditionalGeneration", PAIR),
    "marian": pair("MarianMTModel", PAIR),
    "m2m": pair("M2M100ForConditionalGeneration", PAIR),
    "longt5": pair("LongT5ForConditionalGeneration", T5 | {"local_radius": 3}, "reached in part"),
    "longt5-global": pair("LongT5ForConditionalGeneration", T5 | {
        "local_radius": 3, "encoder_attention_type": "transient-global", "global_block_size": 4,
    }, "reached in part"),
    "pegasus-x": pair("PegasusXForConditionalGeneration", PEGASUS_X, "reached in part"),
    "bigbird-pegasus": pair(BIGBIRD_PEGASUS, PAIR | BLOCKS, "exchanges its attention"),
    "bigbird-pegasus-full": pair(
        BIGBIRD_PEGASUS, PAIR | {"attention_type": "original_full"}, "reached in part"
    ),
}  # fmt: skip
SERVED = tuple(name for name, each in ARCHITECTURES.items() if not each.refused)
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}
SPECIAL |= {"cls_token_id": 1, "sep_token_id": 2}


@functools.cache
def tiny(name: str) -> PreTrainedModel:
    """Build a model once per process; tests must leave it as they found it."""
    kind, settings = ARCHITECTURES[name][:2]
    factory = getattr(transformers, kind)
    torch.manual_seed(0)
    model = factory(factory.config_class(vocab_size=97, **SPECIAL, **settings)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(std=0.25)
    return model


WORDS = [f"w{k}" for k in range(94)]
DRAW = random.Random(0)
TEXTS = [" ".join(DRAW.choices(WORDS, k=length)) for length in (19, 3, 11, 5, 7, 2)]


def tokenizer(frame: str, **options: Any) -> Any:
    """Make a tokenizer of words whose texts stand in a frame of special tokens."""
    special = {"pad": "<pad>", "bos": "<s>", "eos": "</s>"}
    vocabulary = {token: k for k, token in enumerate([*special.values(), *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(single=frame, special_tokens=[("<s>", 1), ("</s>", 2)])
    names = {f"{key}_token": token for key, token in special.items()}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, **names, **options)


class Found(NamedTuple):
    """What became of a model's texts in batches: their side, why not at all, how far from each alone."""

    side: str
    alone: str | None
    gap: float
    difference: float


def kind(name: str) -> str:
    """Tell how a model is asked: by its classifier, by likelihoods or by translations."""
    model = ARCHITECTURES[name].model
    return "classifier" if model.endswith(SEQ) else "pair" if ARCHITECTURES[name].cross else "causal"


@torch.no_grad()
def asked(name: str, model: PreTrainedModel, size: int = 6, side: str = "right") -> Found:
    """Ask a model as the harness does, and compare with plain transformers on each text alone."""
    ask = {"classifier": classified, "causal": scored, "pair": translated}[kind(name)]
    return ask(model, size, side)


def _far(found: Any, expected: Any) -> float:
    return max(
        float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())
        for a, b in zip(found, expected, strict=True)
    )


def classified(model: Any, size: int, side: str) -> Found:
    words = tokenizer("<s> $A </s>", padding_side=side)
    plain = [
        model(**words(text, return_tensors="pt", return_token_type_ids=False)).logits[0] for text in TEXTS
    ]
    lm = EncoderLM(words)
    requests = [
        Instance("classify", {}, (text, None, ("LABEL_0", "LABEL_1"), None), 0, ("tiny", k, 1))
        for k, text in enumerate(TEXTS)
    ]
    with lm.serving(model, batch_size=size):
        lm.check(requests)
        rows = padding.rows(lm, requests)
        reason = padding.suit(lm, lm.answers, rows, 1e-4)
        gap = alone.gap(lm.answers, rows[5], rows[0])
    with lm.serving(model, batch_size=1 if reason else size):
        return Found(lm.side, reason, gap, _far(lm.classify(requests), plain))


def scored(model: Any, size: int, side: str) -> Found:
    words = tokenizer("<s> $A", padding_side=side)
    plain = []
    for text in TEXTS:
        ids = torch.tensor([[1, *words(text)["input_ids"]]])  # the first token is scored after bos
        logs = model(ids).logits[0, :-1].log_softmax(-1)
        plain.append(logs.gather(1, ids[0, 1:, None]).sum())
    lm = CausalLM(model.config, words)
    requests = [
        Instance("loglikelihood_rolling", {}, (text,), 0, ("tiny", k, 1)) for k, text in enumerate(TEXTS)
    ]
    writes = [
        Instance("generate_until", {}, (text, {"max_gen_toks": 3}), 0, ("tiny", k, 1))
        for k, text in enumerate(TEXTS)
    ]
    with lm.serving(model, batch_size=size):
        gap = causal_padding.gap(lm, requests + writes)
    with lm.serving(model, batch_size=size if gap <= 1e-4 else 1):
        found = lm.loglikelihood_rolling(requests)
    reason = None if gap <= 1e-4 else alone.ALONE.format(gap)
    return Found(side, reason, gap, _far(found, plain))


def translated(model: Any, size: int, side: str) -> Found:
    words = tokenizer("$A </s>", padding_side=side)
    pairs = list(zip(TEXTS, TEXTS[::-1], strict=True))
    plain = []
    for source, target in pairs:
        ids, labels = (
            words(text, return_tensors="pt", return_token_type_ids=False)["input_ids"]
            for text in (source, target)
        )
        plain.append(model(input_ids=ids, labels=labels).logits[0])
    lm = Seq2SeqLM(words)
    with lm.serving(model, batch_size=size):
        gap = lm.gap(pairs)
        found = lm._logits(pairs) if gap <= 1e-4 else [lm._logits([pair])[0] for pair in pairs]
    return Found(side, None if gap <= 1e-4 else alone.ALONE.format(gap), gap, _far(found, plain))
