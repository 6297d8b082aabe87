"""What the lm-eval models of ours share: the model they answer with is lent to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Self, TypedDict, Unpack

from lm_eval.api.model import LM

from attnbench.measures.likely import Likely

BATCH_SIZE = 32
# of a checkpoint's generation_config.json: what would make of a text something else, several, or one of a
# length that no task asks for, and a way to write faster that takes no batch
FORM = {
    "num_return_sequences": 1, "return_dict_in_generate": False, "output_scores": False, "max_time": None,
    "output_logits": False, "output_attentions": False, "output_hidden_states": False, "max_new_tokens": None,
    "prompt_lookup_num_tokens": None,
}  # fmt: skip
TOKENS = ("pad", "bos", "eos", "decoder_start")  # what every checkpoint sets


@contextlib.contextmanager
def one_text(model: Any) -> Iterator[None]:
    """Let `generate` return one text an input, whatever a checkpoint's generation settings say.

    What it raises gets a note of these settings, which it may not take, unless a method is named already.
    """
    config = model.generation_config
    before = {name: getattr(config, name) for name in FORM}
    try:
        vars(config).update(FORM)
        yield
    except Exception as error:
        if not getattr(error, "__notes__", None) and (told := _settings(config)):
            error.add_note(f"its generation_config.json sets {told}")
        raise
    finally:
        vars(config).update(before)


def stopping(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Return what `generate` needs beside where a checkpoint's generation settings name texts to stop at."""
    return {"tokenizer": tokenizer} if model.generation_config.stop_strings else {}


def _settings(config: Any) -> str:
    """List what a checkpoint says of generation, its tokens and what `one_text` changes aside."""
    known = {"transformers_version", "_from_model_config", "use_cache", *FORM}
    known |= {f"{each}_token_id" for each in TOKENS}
    told = {name: value for name, value in config.to_diff_dict().items() if name not in known}
    return ", ".join(f"{name}={value}" for name, value in told.items())


class Serving(TypedDict, total=False):
    """How a model is asked, on which no number depends.

    A batch holds `batch_size` inputs or, where given, `batch_tokens` tokens with padding. `progress` gets the
    number of samples done after every batch.
    """

    batch_size: int
    batch_tokens: int | None
    device: str
    progress: Callable[[int], None] | None


class ServedLM(LM):
    """An lm-eval model that answers with the model it is lent, and keeps its inputs for the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.model: Any = None
        self.batch_size = BATCH_SIZE
        self.batch_tokens: int | None = None
        self.progress: Callable[[int], None] | None = None
        self.likely: Likely | None = None  # collects what is expected of target tokens, where it is wanted
        self._device = "cpu"

    @contextlib.contextmanager
    def serving(self, model: Any, **options: Unpack[Serving]) -> Iterator[Self]:
        """Answer with a model until the block ends."""
        self.model, self._device = model, options.get("device", "cpu")
        self.batch_size = options.get("batch_size", BATCH_SIZE)
        self.batch_tokens = options.get("batch_tokens")
        self.progress = options.get("progress")
        try:
            yield self
        finally:
            self.model = self.progress = self.likely = None
