"""What a causal language model reads for lm-eval's requests: tokenised as HFLM does, many texts at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lm_eval.models.utils import has_bos_prefix, normalize_gen_kwargs, resolve_max_length
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from attnbench.backends.encoders.inputs import padded
from attnbench.backends.encoders.limits import beyond, where
from attnbench.errors import UserError

GENERATED = 256  # tokens at most where a task says nothing: HFLM's own


class Row(NamedTuple):
    """A model input and the tokens it has to predict: the last of them follows the input's last.

    `prompt` counts the tokens before the one whose successor is predicted first: that one is the first to see
    what is left of a cache. A window of a text has none, unless its
    first tokens are taken for one.
    """

    ids: tuple[int, ...]
    targets: tuple[int, ...]
    prompt: int | None = None


class Inputs:
    """The inputs of every request seen so far, each of at most `longest` tokens or the most it takes.

    With `prompt` so many first tokens of each window of a text are a prompt, of which nothing is scored.
    Raises UserError for a tokenizer that cannot begin a text, and where the model takes fewer tokens.
    """

    def __init__(
        self, config: Any, tokenizer: Any, longest: int | None = None, prompt: int | None = None
    ) -> None:
        self.tokenizer, self.prompt = tokenizer, prompt
        self.window: int | None = None  # tokens of a text at a time, `longest` unless given
        self.windows = self.scored = 0  # of texts, and those of which something is scored
        self.vocabulary = int(config.get_text_config().vocab_size)
        self.longest = resolve_max_length(config, tokenizer)
        if longest is not None:
            if not 2 <= longest <= self.longest:
                raise UserError(f"--max-length {longest}: the model takes 2 to {self.longest:,} tokens.")
            self.longest = longest
        bos, eos, pad = (getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad"))
        if bos is None and eos is None:
            raise UserError(
                "the model's tokenizer has neither a bos nor an eos token: a text's first token cannot be "
                "scored. Set one in its tokenizer_config.json."
            )
        self.prefix: int = eos if bos is None else bos
        if pad is None or pad >= self.vocabulary:
            tokenizer.pad_token_id = self.prefix  # nothing attends to it
        self.cut = 0  # requests whose context lost tokens on the left
        self._rows: dict[Any, list[Row]] = {}
        self._begin = tokenizer.decode(self.prefix)

    def rows(self, requests: Sequence[Any]) -> list[list[Row]]:
        """Return each request's inputs: one, or the windows of a text. Raises UserError."""
        for request in requests:
            self.check_room(request)
        named = {_key(request): request for request in reversed(requests)}
        new = [key for key in dict.fromkeys(map(_key, requests)) if key not in self._rows]
        pairs = [key for key in new if key[0] == "loglikelihood"]
        texts = [key for key in new if key[0] != "loglikelihood"]
        for key, (context, continuation) in zip(pairs, self._pairs([key[1:] for key in pairs]), strict=True):
            self._rows[key] = [self.row(context, continuation, named[key])]
        for key, ids in zip(texts, self._encode([key[1] for key in texts]), strict=True):
            if key[0] == "loglikelihood_rolling":
                self._rows[key] = self._windows(ids, named[key])
            else:
                room = self.longest - key[2]
                self.cut += len(ids) > room
                self._require_known(ids, named[key])
                kept = tuple(self._prompt(ids, room))
                self._rows[key] = [Row(kept, (), len(kept) - 1)]
        return [self._rows[_key(request)] for request in requests]

    def check_room(self, request: Any) -> None:
        """Raise UserError where what is to be generated would leave no room for the prompt."""
        if request.request_type == "generate_until" and _wanted(request) >= self.longest:
            raise UserError(
                f"task '{request.task_name}' asks for {_wanted(request)} new tokens, the model takes "
                f"{self.longest} in all. Choose a model that takes more."
            )

    def row(self, context: list[int], continuation: list[int], request: Any) -> Row:
        """Return the input that predicts a continuation, cut on the left to what the model takes."""
        if not 1 <= len(continuation) <= self.longest:
            raise UserError(
                f"{where(request)}: a text to score has {len(continuation)} tokens: the model scores 1 to "
                f"{self.longest} at a time. Choose a model that takes more, or leave the sample out."
            )
        ids = (*context, *continuation)
        self._require_known(ids, request)
        self.cut += len(ids) > self.longest + 1
        read = ids[-(self.longest + 1) : -1]
        return Row(read, tuple(continuation), len(read) - len(continuation))

    def prompts(self, texts: Sequence[str], room: int) -> dict[str, Tensor]:
        """Pad prompts on the left to one batch, each cut on the left to `room` tokens."""
        kept = [self._prompt(ids, room) for ids in self._encode(list(texts))]
        batch = self.collate([ids[::-1] for ids in kept])
        return {name: value.flip(1) for name, value in batch.items()}

    def _prompt(self, ids: list[int], room: int) -> list[int]:
        return ids[-room:] or [self.prefix]  # nothing to go on from is a text's beginning

    def collate(self, inputs: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Pad inputs on the right to one batch: ids and attention mask, (rows, tokens)."""
        ids, mask = padded(inputs, self.tokenizer.pad_token_id)
        return {"input_ids": ids, "attention_mask": mask}

    def _require_known(self, ids: Sequence[int], request: Any) -> None:
        highest = max(ids, default=0)
        if highest >= self.vocabulary:
            raise UserError(f"{where(request)}: {beyond(self.tokenizer, highest, self.vocabulary)}")

    def _windows(self, ids: list[int], request: Any) -> list[Row]:
        windows = get_rolling_token_windows(ids, self.prefix, self.window or self.longest, 1)
        pairs = (make_disjoint_window(window) for window in windows)
        rows = [self.row(list(before), list(wanted), request) for before, wanted in pairs]
        later = [(row, len(row.ids) - (self.prompt or 0)) for row in rows]
        # what the prompt's own queries predict is dense: the first token after it is the first to see a cut
        found = [row._replace(prompt=self.prompt, targets=row.targets[-n:]) for row, n in later if n > 0]
        self.windows, self.scored = self.windows + len(rows), self.scored + len(found)
        return found

    def _pairs(self, arguments: list[tuple[str, str]]) -> Iterator[tuple[list[int], list[int]]]:
        """Yield the tokens of contexts and continuations; spaces between them belong to the continuation."""
        moved = []
        for context, continuation in arguments:
            kept = context.rstrip() or context
            moved.append((kept, context[len(kept) :] + continuation))
        joined = [context + rest for context, rest in moved if context]
        whole, first = self._encode(joined), self._encode([context for context, _ in moved if context])
        alone = iter(self._encode([rest for context, rest in moved if not context], special=False))
        both = iter(zip(whole, first, strict=True))
        for context, _ in moved:
            if context:
                ids, before = next(both)
                yield before, ids[len(before) :]
            else:
                ids = next(alone)
                yield (ids[:1], ids[1:]) if ids[:1] == [self.prefix] else ([self.prefix], ids)

    def _encode(self, texts: list[str], special: bool = True) -> list[list[int]]:
        if not texts:
            return []
        plain: list[list[int]] = self.tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]
        for place, text in enumerate(texts):
            if special and self._begun(text):
                plain[place] = self.read(text)["input_ids"]
        return plain

    def read(self, text: str, **options: Any) -> Any:
        """Tokenise one text as it is read; `options` are the tokenizer's own."""
        special = not self._begun(text)
        return self.tokenizer(text, add_special_tokens=special, verbose=False, **options)

    def _begun(self, text: str) -> bool:
        """Tell whether a text begins as the tokenizer would begin it."""
        return bool(has_bos_prefix(text, self._begin))


def heads_of(config: Any) -> int:
    """Count the heads of all layers, or the layers where a config has no one number of heads."""
    text = config.get_text_config()
    heads, layers = (getattr(text, name, 1) for name in ("num_attention_heads", "num_hidden_layers"))
    return max(1, layers) * (heads if isinstance(heads, int) else 1)


def _key(request: Any) -> tuple[Any, ...]:
    kind, arguments = request.request_type, request.args
    if kind == "generate_until":
        return (kind, arguments[0], _wanted(request))
    return (kind, *(arguments if kind == "loglikelihood" else arguments[:1]))


def _wanted(request: Any) -> int:
    return int(normalize_gen_kwargs(request.args[1], GENERATED)["max_gen_toks"])
