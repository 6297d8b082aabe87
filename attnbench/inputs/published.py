"""Published checkpoints by short name: the right one for each task, and what its card states it scores."""

from __future__ import annotations

from dataclasses import dataclass

Scores = dict[str, float]


@dataclass(frozen=True)
class Published:
    """One pretrained model and what was made of it.

    `heads` is layers × heads, `licence` that of the pretrained weights; `tasks` are Hub id and stated scores
    by task, an empty dict where the card states none that is ours; `usual` are run when no task is named.
    """

    parameters: str
    heads: str
    licence: str
    tasks: dict[str, tuple[str, Scores]]
    usual: tuple[str, ...] = ("sst2", "squad")


PUBLISHED = {
    "bert-base": Published(
        "110M", "12×12", "Apache-2.0",
        {
            "sst2": ("textattack/bert-base-uncased-SST-2", {"acc": 0.9243}),
            "squad": ("csarron/bert-base-uncased-squad-v1", {"em": 0.809, "f1": 0.882}),
            "cola": ("textattack/bert-base-uncased-CoLA", {"mcc": 0.5339}),
            "mrpc": ("textattack/bert-base-uncased-MRPC", {"acc": 0.8775}),
            "rte": ("textattack/bert-base-uncased-RTE", {"acc": 0.7256}),
            "stsb": ("JeremiahZ/bert-base-uncased-stsb", {"pearson": 0.8875, "spearman": 0.8843}),
            "blimp": ("google-bert/bert-base-uncased", {}),
            "wikitext": ("google-bert/bert-base-uncased", {}),
        },
    ),
    "bert-large": Published(
        "335M", "24×16", "Apache-2.0",
        {
            "squad": ("google-bert/bert-large-uncased-whole-word-masking-finetuned-squad", {}),
            "blimp": ("google-bert/bert-large-uncased", {}),
            "wikitext": ("google-bert/bert-large-uncased", {}),
        },
        ("squad",),
    ),
    "roberta-base": Published(
        "125M", "12×12", "MIT",
        {
            "sst2": ("textattack/roberta-base-SST-2", {"acc": 0.9438}),
            "squad": ("csarron/roberta-base-squad-v1", {"em": 0.830, "f1": 0.904}),
            "cola": ("textattack/roberta-base-CoLA", {}),
            "mrpc": ("textattack/roberta-base-MRPC", {"acc": 0.9118}),
            "rte": ("textattack/roberta-base-RTE", {"acc": 0.7942}),
            "stsb": ("textattack/roberta-base-STS-B", {"pearson": 0.9109}),
            "blimp": ("FacebookAI/roberta-base", {}),
            "wikitext": ("FacebookAI/roberta-base", {}),
        },
    ),
    "distilbert": Published(
        "66M", "6×12", "Apache-2.0",
        {
            "sst2": ("distilbert/distilbert-base-uncased-finetuned-sst-2-english", {"acc": 0.9106}),
            "squad": ("distilbert/distilbert-base-cased-distilled-squad", {"f1": 0.871}),
            "blimp": ("distilbert/distilbert-base-uncased", {}),
            "wikitext": ("distilbert/distilbert-base-uncased", {}),
        },
    ),
    "electra-small": Published(
        "14M", "12×4", "Apache-2.0",
        {
            "sst2": ("Hazqeel/electra-small-finetuned-sst2", {"acc": 0.9014}),
            "squad": ("Palak/google_electra-small-discriminator_squad", {"em": 0.7695, "f1": 0.8499}),
            "blimp": ("google/electra-small-generator", {}),
            "wikitext": ("google/electra-small-generator", {}),
        },
    ),
    "gpt2": Published(
        "124M", "12×12", "MIT",
        dict.fromkeys(("wikitext", "blimp", "lambada_openai"), ("openai-community/gpt2", {})),
        ("wikitext", "lambada_openai"),
    ),
    "distilgpt2": Published(
        "82M", "6×12", "Apache-2.0",
        dict.fromkeys(("wikitext", "blimp", "lambada_openai"), ("distilbert/distilgpt2", {})),
        ("wikitext", "lambada_openai"),
    ),
    "smollm2": Published(
        "135M", "30×9", "Apache-2.0",
        dict.fromkeys(("lambada_openai", "wikitext", "blimp"), ("HuggingFaceTB/SmolLM2-135M-Instruct", {})),
        ("lambada_openai", "wikitext"),
    ),
    "opus-mt-en-de": Published(
        "74M", "6+6×8", "CC BY 4.0",
        dict.fromkeys(("multi30k", "multi30k-beam4"), ("Helsinki-NLP/opus-mt-en-de", {})),
        ("multi30k",),
    ),
}  # fmt: skip
