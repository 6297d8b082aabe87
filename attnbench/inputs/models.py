"""Find and load checkpoints: pocket models, published models, Hub ids and folders."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench.errors import Misfit, NotApplicable, UserError, near_file, unknown
from attnbench.inputs import adapters, endings, gguf_files, hub, names, tasks, weights
from attnbench.inputs.files import expanded
from attnbench.inputs.names import is_place, label, pocket_families, tasks_of
from attnbench.inputs.published import PUBLISHED

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

POCKET = names.POCKET
SIDECAR = "attnbench.json"  # beside the weights of an export: which heads it does without
WEIGHTS = {"safetensors": "*.safetensors", "bin": "pytorch_model*.bin"}  # the first there is is loaded
BESIDE = (
    "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model", "*.spm",
    "generation_config.json", "chat_template*", "*.py",
)  # fmt: skip
FETCHED = (  # of a Hub model, beside weights and own code
    "*.json", "*.txt", "*.model", "*.spm", "*.jinja", adapters.WEIGHTS[1],
)  # fmt: skip


def check_folder(name: str) -> None:
    """Raise UserError where a model is given as a folder or a file and there is none."""
    own, place = names.named(name)
    if gguf_files.is_gguf(place):
        if not expanded(place).is_file():
            raise UserError(f"model '{name}': no such file.{near_file(place, (gguf_files.ENDING,))}")
    elif is_place(place) and not expanded(place).is_dir():
        several = " NAME=PATH is not parted at commas: give several words." if own and "," in place else ""
        what = "no such folder." if not expanded(place).exists() else "is a file."
        told = f"model '{name}': {what}{near_file(place)}{several}"
        raise UserError(f"{told} Give a folder saved by `save_pretrained`.")


@dataclass(frozen=True)
class Checkpoint:
    """One set of weights on disk or on the Hub: `name` is its name in tables, `path` what is loaded."""

    name: str
    path: str
    source: str  # pocket, published, hub, folder or file
    trust_remote_code: bool = False

    @functools.cached_property
    def file(self) -> gguf_files.GgufFile | None:
        """Return the GGUF file that it is, None for a folder. Raises UserError for what is no such file."""
        return gguf_files.opened(self.path) if self.source == "file" else None

    @functools.cached_property
    def folder(self) -> str:
        """Return the local folder, downloading a Hub model first. Raises UserError where it cannot be had."""
        if self.file is not None:
            return self.file.folder
        if self.source in ("pocket", "folder"):
            if not any((Path(self.path) / name).is_file() for name in ("config.json", adapters.CONFIG)):
                raise UserError(
                    f"model '{self.path}': no config.json there. Give a folder saved by `save_pretrained`."
                )
            return self.path
        instead = ", ".join(f"pocket-{family}" for family in pocket_families())
        if Path(self.path).is_dir():
            instead = f"./{self.path}, the folder of that name here"
        return hub.download(
            self.path, FETCHED, instead, weights=[*WEIGHTS.values()], own_code=self.trust_remote_code
        )

    @functools.cached_property
    def adapter(self) -> adapters.Adapter | None:
        """Return the adapter in its folder. Raises UserError for one that cannot be merged."""
        return adapters.find(self.folder)

    @functools.cached_property
    def base(self) -> Checkpoint:
        """Return whose weights are loaded: an adapter alone changes those of another checkpoint."""
        if self.adapter is None or self._own_weights:
            return self
        named = self.adapter.base
        if (place := self.adapter.place()) is not None:
            return Checkpoint(self.name, place, "folder", self.trust_remote_code)
        return Checkpoint(named, named, "hub", self.trust_remote_code)

    def config(self) -> Any:
        from transformers import AutoConfig

        if self.adapter is not None and not (Path(self.folder) / "config.json").is_file():
            config, outputs = self.base.config(), self.adapter.labels()
            if outputs not in (None, config.num_labels):
                config.num_labels = outputs
            return config
        with self.readable():
            if self.file is not None:
                return copy.deepcopy(self.file.config)
            return AutoConfig.from_pretrained(self.folder, trust_remote_code=self.trust_remote_code)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        if self.base is not self and not any(Path(self.folder).glob("tokenizer*")):
            return self.base.tokenizer()
        packed = {} if self.file is None else {"gguf_file": gguf_files.NAME}
        with self.readable():
            tokenizer = AutoTokenizer.from_pretrained(
                self.folder, trust_remote_code=self.trust_remote_code, **packed
            )
        if self.file is not None:
            self.file.split(tokenizer)
        if len(tokenizer) <= len(set(tokenizer.all_special_tokens)):
            # without its files transformers makes one that knows its special tokens and nothing else
            raise UserError(f"model '{self.path}' cannot be read: it has no tokenizer beside its weights.")
        return tokenizer

    def load(
        self, head: str, device: str = "cpu", dtype: str = "float32", device_map: str | None = None
    ) -> PreTrainedModel:
        """Load the weights with one of `weights.HEADS`, an adapter merged into them, in eval mode.

        Raises Misfit where that head is missing.
        """
        where = weights.mapped(self, device, device_map)
        model, missing, others = weights.read(self, head, dtype, where)
        if others:
            reason = weights.misshapen(Path(self.base.folder), others)
            raise UserError(f"model '{self.path}' cannot be read: {reason}")
        if missing:
            found = ", ".join(getattr(model.config, "architectures", None) or ["an unnamed architecture"])
            raise Misfit(
                f"model '{self.name}' ({found}) has no trained {head} head: {min(missing)} is missing. "
                "Choose a task that fits it."
            )
        return (model.to(device) if where is None else model).eval()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash the config and the weights that are loaded: sha256 over the files' contents.

        Of an adapter also what it says of itself and what it changes; of a GGUF file that of the file.
        """
        if self.file is not None:
            return self.file.fingerprint
        own = self._hash_of("config.json", SIDECAR, WEIGHTS[self.weight_format])
        if self.adapter is None:
            return own
        parts = [own, self._hash_of(adapters.CONFIG, *adapters.WEIGHTS)]
        parts += [self.base.fingerprint] if self.base is not self else []
        return _joined(*parts)

    @functools.cached_property
    def companions(self) -> str:
        """Hash what is read beside them: the tokenizer, generation settings, a checkpoint's own code."""
        own = self._hash_of(*BESIDE)
        return own if self.base is self else _joined(own, self.base.companions)

    def _hash_of(self, *patterns: str) -> str:
        digest = hashlib.sha256()
        for pattern in patterns:
            for file in sorted(Path(self.folder).glob(pattern)):
                digest.update(file.name.encode())
                with file.open("rb") as handle:
                    while block := handle.read(1 << 20):
                        digest.update(block)
        return digest.hexdigest()

    @functools.cached_property
    def weight_format(self) -> str:
        if self.file is not None:
            return self.file.weight_format
        if self.base is not self:
            return self.base.weight_format
        return "safetensors" if any(name.endswith(".safetensors") for name in self._own_weights) else "bin"

    @property
    def _own_weights(self) -> set[str]:
        found = {file.name for pattern in WEIGHTS.values() for file in Path(self.folder).glob(pattern)}
        return found - set(adapters.WEIGHTS)

    @contextlib.contextmanager
    def readable(self) -> Iterator[None]:
        """Turn what transformers raises for a damaged or foreign folder into one line."""
        from safetensors import SafetensorError

        try:
            yield
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            if isinstance(error, ImportError) and "sentencepiece" in str(error).lower():
                first = 'its tokenizer needs sentencepiece. Next: pip install "attnbench[sentencepiece]"'
            raise UserError(f"model '{self.path}' cannot be read: {first}") from error


def _joined(*digests: str) -> str:
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def find(name: str, task: str, trust_remote_code: bool = False) -> Checkpoint:
    """Return a model name's checkpoint for a task. Raises UserError or NotApplicable where there is none."""
    shown, given = label(name), name
    name = names.named(name)[1]
    task = endings.parted(task)[0]
    pocket = pocket_families().get(name.removeprefix("pocket-"), {})
    if tasks.is_own(task):
        trained = pocket or (PUBLISHED[name].tasks if name in PUBLISHED else {})
        task = next((each for each in trained if tasks.find(each).head == "classification"), task)
    else:
        task = tasks.recorded(task)
    if pocket:
        if task not in pocket:
            raise NotApplicable(
                f"{shown} is trained for {', '.join(sorted(pocket))}, not for {tasks.shown(task)}"
            )
        return Checkpoint(shown, str(pocket[task]), "pocket")
    if name in PUBLISHED:
        known = PUBLISHED[name].tasks
        found = known.get(task) or known.get(task.partition("_")[0])  # a part, as blimp_transitive is
        if found is None:
            raise NotApplicable(
                f"{name} has published checkpoints for {', '.join(known)}, not for {tasks.shown(task)}"
            )
        return Checkpoint(name, found[0], "published", trust_remote_code)
    if is_place(name):
        check_folder(given)
        kind = "file" if gguf_files.is_gguf(name) else "folder"
        return Checkpoint(shown, os.path.expanduser(name), kind, trust_remote_code)
    return Checkpoint(shown, name, "hub", trust_remote_code)


def expected_scores(name: str, task: str) -> dict[str, float]:
    """Return the dense scores that a published checkpoint's card states."""
    return PUBLISHED[name].tasks.get(tasks.recorded(task), ("", {}))[1] if name in PUBLISHED else {}


def checkpoint(name: str, task: str | None = None) -> Path:
    """Return the folder of a pocket model, for `from_pretrained`.

    >>> checkpoint("bert").name
    'bert-sentiment'
    """
    folders = pocket_families().get(name.removeprefix("pocket-"))
    if not folders:
        raise unknown("pocket model", name, pocket_families(), f"Known: {', '.join(pocket_families())}.")
    if task is None:
        return folders[tasks_of(name)[0]]
    if task not in folders:
        raise unknown(f"task of {name}", task, folders, f"{name} has {', '.join(folders)}.")
    return folders[task]
