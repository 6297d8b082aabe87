"""Shared fixtures: tiny models that are built, not loaded, and a registry that forgets what a test added."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="attnbench-state-")  # of no user, forgotten after
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores; .ci/numeric sets others
os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # read by the first profiler of a process, whosever it is
ROOT = Path(__file__).parent.parent
SCALED = '''
from dataclasses import dataclass, field
from pathlib import Path
from attnbench import Method, hookimpl

@dataclass
class Scaled(Method):
    """Scale by the number in a file."""
    name = "scaled"
    examples = ("scaled:file=a",)
    file: str = field(default="", kw_only=True)

    def probs(self, probs, site):
        return probs * float(Path(self.file).read_text())

@hookimpl
def register_methods(register):
    register(Scaled)
'''


@pytest.fixture
def fresh_registry():
    """Let a test load plugins that no other test sees."""
    from attnbench.methods import plugins

    before, modules = plugins._registry, set(sys.modules)
    plugins._registry = None
    yield plugins
    plugins._registry = before
    for name in set(sys.modules) - modules:
        if name.startswith("attnbench_plugin_"):
            del sys.modules[name]


@pytest.fixture
def scaled(fresh_registry, tmp_path):
    """Register a method that reads a file which its spec names."""
    path = tmp_path / "scaled.py"
    path.write_text(SCALED, encoding="utf-8")
    fresh_registry.load([str(path)])


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and checkpoints, where there is one."""
    folder = Path(os.environ.get("ATTNBENCH_SHARED", ROOT.parent / "shared"))
    if not (folder / "models" / "minilm-sst2").is_dir():
        pytest.skip("no folder of real checkpoints: set ATTNBENCH_SHARED")
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> str:
    """A BERT classifier of two layers with random weights that attends sharply, saved with its tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    from attnbench.pocket.text import documents

    words = sorted({w for doc in documents("sentiment", "train", 200) for w in doc["text"].lower().split()})
    vocabulary = {token: k for k, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=192,
        id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1},
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    for name, weight in model.named_parameters():
        if name.endswith("weight") and "LayerNorm" not in name:
            weight.data.normal_(std=0.4 if "query" in name or "key" in name else 0.3)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A browser for all tests of pages; without one they are skipped, in CI they fail."""
    from browsing import BROWSERS, DRIVERS, Browser, missing, program

    for names in (BROWSERS, DRIVERS):
        if program(names) is None:
            missing(f"no {names[0]}")
    try:
        import selenium  # noqa: F401
    except ImportError:
        missing("no selenium")
    found = Browser(tmp_path_factory.mktemp("browser"))
    yield found
    found.driver.quit()
