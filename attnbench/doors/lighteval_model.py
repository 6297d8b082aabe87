"""attnbench as lighteval's custom model, the file that `attnbench lighteval custom … attnbench …` names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from lighteval.models.abstract_model import LightevalModel
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.prompt_manager import PromptManager
from lm_eval.api.instance import Instance

from attnbench.doors.causal_server import CausalServer
from attnbench.errors import UserError


class AttnbenchModel(LightevalModel):
    """A causal checkpoint with a method. Contexts and continuations are tokenised as lm-eval does it."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self._server = CausalServer.of(config.model_name)
        self._prompts = PromptManager(system_prompt=config.system_prompt)
        # lighteval's cache knows a model by its arguments: it would not notice a method's code changing
        self._cache = SimpleNamespace(_init_registry=lambda registry: None)

    @property
    def tokenizer(self) -> Any:
        return self._server.lm.inputs.tokenizer

    @property
    def add_special_tokens(self) -> bool:
        return True

    @property
    def max_length(self) -> int:
        return int(self._server.lm.max_length)

    def loglikelihood(self, docs: Sequence[Any]) -> list[Any]:
        """Return the log-likelihood of each choice of each document."""
        prompts = [self._prompts.prepare_prompt(doc) for doc in docs]
        requests = [
            _request("loglikelihood", doc, (prompt, choice))
            for doc, prompt in zip(docs, prompts, strict=True)
            for choice in doc.choices
        ]
        answers = iter(zip(self._ask(requests), self._rows(requests), strict=True))
        found = []
        for doc, prompt in zip(docs, prompts, strict=True):
            own = [next(answers) for _ in doc.choices]
            response = ModelResponse(
                input=prompt,
                input_tokens=list(own[0][1].ids),
                output_tokens=[list(row.targets) for _, row in own],
                logprobs=[value for (value, _), _ in own],
                argmax_logits_eq_gold=[greedy for (_, greedy), _ in own],
            )
            found.append(response)
        return found

    def loglikelihood_rolling(self, docs: Sequence[Any]) -> list[Any]:
        """Return the log-likelihood of each document's whole text."""
        prompts = [self._prompts.prepare_prompt(doc) for doc in docs]
        requests = [
            _request("loglikelihood_rolling", doc, (prompt,))
            for doc, prompt in zip(docs, prompts, strict=True)
        ]
        return [
            ModelResponse(input=prompt, logprobs=[value])
            for prompt, value in zip(prompts, self._ask(requests), strict=True)
        ]

    def greedy_until(self, docs: Sequence[Any]) -> list[Any]:
        """Return what each document's prompt is continued with. Raises UserError where samples are asked."""
        requests = []
        for doc in docs:
            if doc.num_samples > 1:
                raise UserError(
                    f"task '{doc.task_name}' asks for {doc.num_samples} samples of an answer: attnbench "
                    "decodes greedily. Choose a metric of one answer."
                )
            wanted = {"max_gen_toks": doc.generation_size} if doc.generation_size else {}
            options = {"until": list(doc.stop_sequences or ()), "do_sample": False, **wanted}
            requests.append(_request("generate_until", doc, (self._prompts.prepare_prompt(doc), options)))
        return [
            ModelResponse(input=request.args[0], input_tokens=list(row.ids), text=[text])
            for request, text, row in zip(requests, self._ask(requests), self._rows(requests), strict=True)
        ]

    def _rows(self, requests: Sequence[Any]) -> list[Any]:
        return [rows[0] for rows in self._server.lm.inputs.rows(requests)]

    def _ask(self, requests: Sequence[Any]) -> list[Any]:
        inputs = self._server.lm.inputs
        before = inputs.cut
        found = self._server.ask(requests[0].request_type, requests)
        if inputs.cut > before:
            logging.getLogger(__name__).warning(
                "%d of %d requests are longer than the %d tokens the model takes: they lose their beginning",
                inputs.cut - before,
                len(requests),
                self.max_length,
            )
        return found


def _request(verb: str, doc: Any, arguments: tuple[Any, ...]) -> Instance:
    return Instance(verb, {}, arguments, 0, metadata=(doc.task_name, doc.id, 1))
