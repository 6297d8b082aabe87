"""Files of llama.cpp's format GGUF as checkpoints: weights are dequantised, the tokenizer is the file's."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import importlib.util
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnbench.errors import UserError
from attnbench.inputs.files import expanded

ENDING = ".gguf"
MAGIC = b"GGUF"
NAME = "model.gguf"  # in a folder of its own, where no tokenizer of another model lies beside it
WHOLE = ("F64", "F32", "F16", "BF16")  # types of tensors that are not quantised
TURNED = "rope_"  # begins the name of a tensor that changes how positions rotate
SCALED = "rope.scaling.type"
TOKENS, SPLIT = "tokenizer.ggml.model", "tokenizer.ggml.pre"
# how texts are split before merges, by llama.cpp's names: as GPT-2 does, which transformers takes where it
# knows no better, and so after each digit. https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp
AS_GPT2 = ("default", "gpt-2", "mpt", "olmo", "jais", "trillion", "granite-docling")
DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
UNTOUCHED = ("none", "gpt-oss")  # no scaling, and the architecture whose scaling transformers reads


@dataclass(frozen=True)
class GgufFile:
    """One file: what transformers is told to read it, and what a record says of it."""

    path: Path

    @functools.cached_property
    def folder(self) -> str:
        """Return a folder that holds the file alone, for as long as this is held."""
        made = tempfile.mkdtemp(prefix="attnbench-gguf-")
        weakref.finalize(self, shutil.rmtree, made, ignore_errors=True)
        Path(made, NAME).symlink_to(self.path.resolve())
        return made

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash the file, as `sha256sum` does."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @functools.cached_property
    def config(self) -> Any:
        """Return what transformers makes of the file's metadata, with the class of its language model."""
        from transformers import AutoConfig
        from transformers.models.auto import modeling_auto

        found = AutoConfig.from_pretrained(self.folder, gguf_file=NAME)
        known = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(found.model_type)
        if found.architectures is None and known and not found.is_encoder_decoder:
            found.architectures = [known]
        return found

    def options(self) -> dict[str, Any]:
        """Return what `from_pretrained` of a model needs besides: all weights become float values."""
        from transformers import GgufConfig

        return {
            "gguf_file": NAME, "quantization_config": GgufConfig(dequantize=True),
            "config": copy.deepcopy(self.config),
        }  # fmt: skip

    @functools.cached_property
    def _header(self) -> tuple[dict[str, str], dict[str, int], Counter[str]]:
        """Return texts of the metadata, values of each tensor, and bytes of each type."""
        from gguf import GGUFReader

        reader = GGUFReader(self.path)
        texts = {name: str(field.contents()) for name, field in reader.fields.items() if _short(name)}
        values = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
        types: Counter[str] = Counter()
        for tensor in reader.tensors:
            types[tensor.tensor_type.name] += int(tensor.n_bytes)
        return texts, values, types

    @functools.cached_property
    def weight_format(self) -> str:
        """Say for a record what the weights were: `gguf, dequantised from Q4_1 and Q8_0`."""
        types = [name for name, _ in self._header[2].most_common()]
        quantised = [name for name in types if name not in WHOLE]
        return f"gguf, dequantised from {' and '.join(quantised)}" if quantised else f"gguf, {types[0]}"

    def refuse_scaled(self) -> None:
        """Raise UserError where positions rotate in a way that transformers does not read from a file."""
        texts, values, _ = self._header
        architecture = texts.get("general.architecture", "")
        turned = [name for name in values if name.startswith(TURNED)]
        scaling = texts.get(f"{architecture}.{SCALED}", "none")
        turned += [] if {scaling, architecture} & {*UNTOUCHED} else [f"{architecture}.{SCALED}={scaling}"]
        if turned:
            raise UserError(
                f"model '{self.path}' rotates positions by {turned[0]}, which transformers does not read "
                "from a GGUF file: its scores would be those of another model. Give the checkpoint that it "
                "was made of."
            )

    def split(self, tokenizer: Any) -> None:
        """Let a tokenizer split texts as the file says. Raises UserError for a way that is not known."""
        from tokenizers import pre_tokenizers
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

        texts = self._header[0]
        way = texts.get(SPLIT, AS_GPT2[0])
        if texts.get(TOKENS) != "gpt2" or way in (*AS_GPT2, *GGUF_PRE_TOKENIZER_SPLITS):
            return
        if way not in DIGITS:
            raise UserError(
                f"model '{self.path}' splits texts as {SPLIT}={way} does, which transformers does not read "
                "from a GGUF file: it would read other tokens. Give the checkpoint that it was made of."
            )
        parts = [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)

    def require_all(self, model: Any) -> None:
        """Raise UserError where the file holds more, or fewer, values than were loaded."""
        held = dict(self._header[1])
        if model.config.tie_word_embeddings:
            held.pop("output.weight", None)  # once more the embeddings
        found, wanted = sum(held.values()), sum(weight.numel() for weight in model.parameters())
        if found != wanted:
            raise UserError(
                f"model '{self.path}' holds {found:,} values, and {type(model).__name__} of transformers has "
                f"{wanted:,}: what does not fit would be left out without a word. Give the checkpoint that "
                "it was made of."
            )


@contextlib.contextmanager
def without_bar() -> Iterator[None]:
    """Keep transformers from drawing its bar over the tensors of a file: it asks nobody whether to."""
    from transformers import modeling_gguf_pytorch_utils as library

    before = library.tqdm
    library.tqdm = functools.partial(before, disable=True)
    try:
        yield
    finally:
        library.tqdm = before


def _short(name: str) -> bool:
    return name in ("general.architecture", TOKENS, SPLIT) or name.endswith(SCALED)


def is_gguf(path: str) -> bool:
    """Tell whether a model is given as a file of this format, which is by how its name ends."""
    return path.lower().endswith(ENDING)


def opened(path: str) -> GgufFile:
    """Return a file that can be read. Raises UserError for one that is none, and without what reads it."""
    place = expanded(path)
    with place.open("rb") as file:
        begins = file.read(len(MAGIC))
    if begins != MAGIC:
        raise UserError(f"model '{path}' is no GGUF file: it does not begin with {MAGIC.decode()}.")
    require_packages(path, ("gguf", "accelerate"))
    found = GgufFile(place)
    try:
        found.refuse_scaled()
    except (ValueError, IndexError, KeyError, OverflowError) as error:  # of one that was cut off
        raise UserError(f"model '{path}' cannot be read: {' '.join(str(error).split())[:200]}") from error
    return found


def require_packages(path: str, packages: Sequence[str]) -> None:
    """Raise UserError where one of the packages that read such a file is missing."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise UserError(
            f"model '{path}' is a GGUF file, which needs {missing[0]}: pip install \"attnbench[gguf]\""
        )
