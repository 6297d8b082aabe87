"""A plugin of methods that each break one promise. `test_faults` says which check has to find it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from attnbench import Kept, Method, hookimpl
from attnbench.errors import UserError

SOURCE = "\n\nSource: https://example.org/a-planted-fault."
FAULTS: list[type[Method]] = []


def planted(cls):
    """Complete a class to a method that breaks nothing but what it is meant to break."""
    cls.name = f"faulty-{''.join('-' + c.lower() if c.isupper() else c for c in cls.__name__)[1:]}"
    cls.__doc__ = cls.__dict__.get("__doc__") or f"Break a promise: {cls.__name__}.{SOURCE}"
    cls = dataclass(cls)
    cls.examples = cls.__dict__.get("examples", (cls.name + cls.__dict__.get("amount", ""),))
    FAULTS.append(cls)
    return cls


class Fitted(Method):
    """Halve attention, after a fit that each of its children spoils."""

    def spoil(self, model, batches):
        return None

    def fit(self, model, batches):
        self.half_ = 0.5
        self.spoil(model, batches)

    def probs(self, probs, site):
        return probs * self.half_


@planted
class Good(Fitted):
    pass


@planted
class LooksAhead(Method):
    def context(self, context, site):
        return context + context.roll(-1, 2)


@planted
class LooksFarAhead(Method):
    def context(self, context, site):
        return context * 0.5 if context.shape[2] < 32 else context + context.roll(-1, 2)


@planted
class MixesManyExamples(Method):
    def probs(self, probs, site):
        return probs * (0.5 if len(probs) < 4 else probs.mean(0, keepdim=True))


@planted
class MixesExamples(Method):
    def probs(self, probs, site):
        return (probs + probs.mean(0, keepdim=True)) / 2


@planted
class MixesTokens(Method):
    def hidden(self, hidden, site):
        return hidden - hidden.mean(1, keepdim=True)


@planted
class MixesRows(Method):
    def probs(self, probs, site):
        return probs / (1 + probs.mean(2, keepdim=True))


@planted
class AddsTheLast(Method):
    def probs(self, probs, site):
        memory = self.__dict__.setdefault("memory", {})
        before = memory.get((site.path, probs.shape)) if probs.shape[2] == probs.shape[3] else None
        memory[site.path, probs.shape] = probs.detach().clone()
        return probs if before is None else (probs + before) / 2


SHELF = []
FIRST = {}


@planted
class CapsByTheFirstEver(Method):
    def probs(self, probs, site):
        most = FIRST.setdefault((site.path, probs.dtype), float(probs.detach().max()))
        return probs.clamp(max=0.5 * most)


@planted
class CapsByItsFirstSample(Method):
    def probs(self, probs, site):
        first = self.__dict__.setdefault("first", {})
        most = first.setdefault((site.path, probs.dtype), float(probs.detach().max()))
        return probs.clamp(max=0.5 * most)


@planted
class CapsByItsClass(Method):
    def probs(self, probs, site):
        cls = type(self)
        cls.most = getattr(cls, "most", None) or {}
        most = cls.most.setdefault((site.path, probs.dtype), float(probs.detach().max()))
        return probs.clamp(max=0.5 * most)


@planted
class KeepsAReference(Method):
    def probs(self, probs, site):
        self.kept = [probs]
        return probs * 0.5


@planted
class KeepsItsContext(Method):
    def context(self, context, site):
        self.kept = context
        return context * 0.5


@planted
class KeepsForEverybody(Method):
    def scores(self, scores, site):
        SHELF.append(scores)
        return scores * 0.5


@planted
class KeepsAHiddenState(Method):
    def hidden(self, hidden, site):
        if site.layer == 1:
            SHELF.append(hidden)
        return hidden * 0.5


@planted
class KeepsAnArray(Method):
    def probs(self, probs, site):
        SHELF.append(probs.detach().float().numpy())
        return probs * 0.5


@planted
class KeepsAView(Method):
    def context(self, context, site):
        SHELF.append(context[0].detach())
        return context * 0.5


@planted
class EditsAWeight(Fitted):
    def spoil(self, model, batches):
        next(model.parameters()).data.mul_(1.5)


@planted
class FreezesTheModel(Fitted):
    def spoil(self, model, batches):
        model.requires_grad_(False)


@planted
class FlushesDenormals(Fitted):
    def spoil(self, model, batches):
        import torch

        torch.set_flush_denormal(True)


@planted
class LeavesAutocast(Fitted):
    def spoil(self, model, batches):
        import torch

        torch.set_autocast_dtype("cpu", torch.float16)


@planted
class CountsPadding(Fitted):
    def spoil(self, model, batches):
        tokens = [batch["input_ids"].float() for batch in batches]
        self.half_ = sum(float(ids.sum()) for ids in tokens) / sum(ids.numel() for ids in tokens) / 50


@planted
class WeighsBatches(Fitted):
    def spoil(self, model, batches):
        means = [float(batch["input_ids"].float().sum() / batch["attention_mask"].sum()) for batch in batches]
        self.half_ = sum(means) / len(means) / 50


@planted
class TrainsByBatches(Fitted):
    def spoil(self, model, batches):
        import torch

        scale = torch.zeros((), requires_grad=True)
        optimizer = torch.optim.SGD([scale], lr=0.1)
        for batch in batches:
            (scale - batch["input_ids"].float().mean() / 50).square().backward()
            optimizer.step()
            optimizer.zero_grad()
        self.half_ = float(scale.detach())


@planted
class LeavesTrainingMode(Fitted):
    def spoil(self, model, batches):
        model.train()


@planted
class LeavesAHook(Fitted):
    def spoil(self, model, batches):
        model.register_forward_hook(lambda *_: None)


@planted
class LeavesAHookOnAllModules(Fitted):
    def spoil(self, model, batches):
        import torch

        torch.nn.modules.module.register_module_forward_hook(lambda *_: None)


@planted
class PatchesAFunction(Fitted):
    def spoil(self, model, batches):
        import torch

        gelu = torch.nn.functional.gelu
        torch.nn.functional.gelu = lambda *args, **kwargs: gelu(*args, **kwargs) * 0


@planted
class PatchesTheModelsClass(Fitted):
    def spoil(self, model, batches):
        forward = type(model).forward

        def silent(self, *args, **kwargs):
            output = forward(self, *args, **kwargs)
            output["logits"] = output["logits"] * 0
            return output

        type(model).forward = silent


@planted
class LeavesAGradient(Fitted):
    def spoil(self, model, batches):
        model(**batches[0]).loss.backward()


@planted
class Reconfigures(Fitted):
    def spoil(self, model, batches):
        model.set_attn_implementation("eager")


@planted
class RegistersAttention(Fitted):
    def spoil(self, model, batches):
        from transformers import AttentionInterface

        AttentionInterface.register(f"faulty-{id(model)}", print)


@planted
class RestoresOnlyOnSuccess(Fitted):
    def spoil(self, model, batches):
        model.requires_grad_(False)
        for batch in batches:
            model(**batch)
        model.requires_grad_(True)


@planted
class DrawsUnseeded(Fitted):
    def spoil(self, model, batches):
        import torch

        self.half_ = float(torch.rand(()))


@planted
class DrawsByTheShape(Method):
    seed: int = field(default=0, kw_only=True)

    def probs(self, probs, site):
        import torch

        drawn = torch.rand(probs.shape, generator=torch.Generator().manual_seed(self.seed))
        return probs * (drawn > 0.5)


@planted
class DrawsWhenMade(Method):
    def __post_init__(self):
        import torch

        self.scale = float(torch.rand(()))

    def probs(self, probs, site):
        return probs * self.scale


@planted
class SetsTheSeedWhenMade(Method):
    def __post_init__(self):
        import torch

        torch.manual_seed(0)
        self.scale = float(torch.rand(()))

    def probs(self, probs, site):
        return probs * self.scale


@planted
class SetsTheSeed(Method):
    def probs(self, probs, site):
        import torch

        torch.manual_seed(0)
        return probs * 0.5


@planted
class HashesAString(Method):
    def probs(self, probs, site):
        return probs * (hash((site.kind, 1)) % 1000 / 1000)


@planted
class HashesAStringInFit(Fitted):
    def spoil(self, model, batches):
        self.half_ = hash("half") % 1000 / 1000


@planted
class HashesNumbers(Method):
    def probs(self, probs, site):
        return probs * (hash((site.layer, 0.5)) % 1000 / 1000)


@planted
class IgnoresItsSeed(Method):
    seed: int = field(default=0, kw_only=True)

    def probs(self, probs, site):
        return probs * 0.5


@planted
class IgnoresItsSeedInFit(Fitted):
    seed: int = field(default=0, kw_only=True)


@planted
class ActsEverywhere(Method):
    def selects(self, site):
        return True

    def probs(self, probs, site):
        return probs * 0.5


@planted
class ForgetsItsLayers(Method):
    def __post_init__(self):
        self.layers = ()

    def probs(self, probs, site):
        return probs * 0.5


@planted
class RealizesNothing(Method):
    def probs(self, probs, site):
        return probs * 0.5

    def realize(self, model):
        return contextlib.nullcontext()


@planted
class RealizesForGood(Method):
    def context(self, context, site):
        return context * 0.5

    def realize(self, model):
        for layer in model.bert.encoder.layer:
            layer.attention.output.dense.weight.data.mul_(0.5)
        return contextlib.nullcontext()


@planted
class FitsWithoutUnderscore(Method):
    def fit(self, model, batches):
        self.mean = 0.5

    def probs(self, probs, site):
        return probs * self.mean


@planted
class FitsOnAndOn(Fitted):
    def spoil(self, model, batches):
        self.fits = getattr(self, "fits", 0) + 1
        self.half_ = 0.5**self.fits


@planted
class LearnsInfinity(Fitted):
    def spoil(self, model, batches):
        self.cut_ = float("inf")


@planted
class LearnsAnObject(Fitted):
    def spoil(self, model, batches):
        self.order_ = {"layers": [{0, 1}]}


@planted
class MakesNan(Method):
    def probs(self, probs, site):
        return probs / 0 - probs / 0 if site.layer == 1 else probs * 0.5


@planted
class MakesNanLate(Method):
    def probs(self, probs, site):
        late = site.kind == "decoder" and probs.shape[2] == 1 and probs.shape[3] > 4
        return probs * (float("nan") if late else 0.5)


@planted
class MakesNanFarOut(Method):
    def probs(self, probs, site):
        return probs * (0.5 if probs.shape[-1] < 300 else float("nan"))


@planted
class OverflowsInFloatSixteen(Method):
    def probs(self, probs, site):
        return probs * 1e6 / 2e6


@planted
class ActsInSinglePrecision(Method):
    def probs(self, probs, site):
        import torch

        return probs * 0.5 if probs.dtype == torch.float32 else probs


@planted
class OverflowsInHalf(Method):
    def probs(self, probs, site):
        import torch

        return probs * (float("inf") if probs.dtype == torch.bfloat16 else 0.5)


@planted
class ReturnsAnotherShape(Method):
    def probs(self, probs, site):
        return probs.mean(1, keepdim=True)


@planted
class ReturnsAnotherDtype(Method):
    def scores(self, scores, site):
        return scores.double()


@planted
class ReturnsNothing(Method):
    def context(self, context, site):
        context * 0.5


@planted
class RaisesInAStage(Method):
    def probs(self, probs, site):
        if site.layer == 1:
            raise KeyError("layer one")
        return probs


@planted
class ExitsInAStage(Method):
    def probs(self, probs, site):
        raise SystemExit(0)


@planted
class ExitsInFit(Fitted):
    def spoil(self, model, batches):
        raise SystemExit(3)


@planted
class MovesItsSite(Method):
    def hidden(self, hidden, site):
        site.kind = "cross"
        return hidden * 0.5


@planted
class RefusesInAStage(Method):
    def scores(self, scores, site):
        raise UserError("no such stage")


@planted
class RefusesInFit(Fitted):
    def spoil(self, model, batches):
        raise UserError("no such fit")


@planted
class RaisesInFit(Fitted):
    def spoil(self, model, batches):
        raise ZeroDivisionError("no heads")


@planted
class EditsInPlace(Method):
    def probs(self, probs, site):
        return probs.mul_(0.5)


@planted
class EditsItsData(Method):
    def probs(self, probs, site):
        probs.data.mul_(0.5)
        return probs


@planted
class IsAnotherFunctionUnderAutograd(Method):
    def probs(self, probs, site):
        return probs * (0.25 if probs.requires_grad else 0.5)


@planted
class KnowsNoCache(Method):
    def probs(self, probs, site):
        return probs * 0.5 if probs.shape[2] == 1 else probs * 0.25


@planted
class KnowsNoWindow(Method):
    def probs(self, probs, site):
        lost = site.visible is not None and not bool(site.visible[..., 0].any())
        return probs * (0.25 if lost and probs.shape[2] == 1 else 0.5)


@planted
class DropsASite(Method):
    def context(self, context, site):
        from attnbench.engine.places import routing

        answering = [module for module in routing._serving if type(module).__name__ == "BertSelfAttention"]
        if site.layer == 0 and len(answering) == 2:
            routing._serving.pop(answering[1])
        return context * 0.5


@planted
class ChangesNothing(Method):
    def probs(self, probs, site):
        return probs


@planted
class MisspellsItsStage(Method):
    def prob(self, probs, site):
        return probs * 0.5


@planted
class HasNoLink(Method):
    """Halve attention, who knows why."""

    def probs(self, probs, site):
        return probs * 0.5


@planted
class DescribesItself(Method):
    """This class halves attention.

    Source: https://example.org.
    """

    def probs(self, probs, site):
        return probs * 0.5


@planted
class ChangesItsAmount(Method):
    amount = "50"
    percent: float

    def __post_init__(self):
        self.percent = self.percent / 100

    def probs(self, probs, site):
        return probs * self.percent


@planted
class HasNoExample(Method):
    examples = ()

    def probs(self, probs, site):
        return probs * 0.5


@planted
class ActsAtZero(Method):
    amount, zero = "50", 0
    percent: float

    def probs(self, probs, site):
        return probs * (0.5 + self.percent / 200)


@planted
class GrowsDenser(Method):
    amount, grows = "80", "sparsity"
    percent: float

    def probs(self, probs, site):
        return probs * (probs > 0.2 - self.percent / 500)


@planted
class SeesAllRows(Method):
    rows = "all"

    def probs(self, probs, site):
        return probs / (1 + probs.mean(2, keepdim=True))


@planted
class MixesKeys(Method):
    """Add to every key the one after it."""

    __doc__ += SOURCE

    def keys(self, keys, site):
        return keys + keys.roll(-1, 2)


@planted
class KeepsAPrompt(Method):
    def cache(self, prompt, site):
        self.held = prompt.keys
        return Kept(values=prompt.values * 0.5)


@planted
class CutsByItsFirstPrompt(Method):
    def cache(self, prompt, site):
        vars(self).setdefault("first", prompt.values.mean())
        return Kept(values=prompt.values + self.first)


@planted
class CutsByTheLengthOfAPass(Method):
    def cache(self, prompt, site):
        return Kept(values=prompt.values / (1 + prompt.keys.untyped_storage().nbytes() % 7))


@hookimpl
def register_methods(register):
    for method in FAULTS:
        register(method)
