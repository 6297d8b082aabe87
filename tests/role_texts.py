"""A study looks at a model in a test: a tokenizer of numbers, its texts, and what was found."""

from __future__ import annotations

import random

import planted_heads as planted
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from attnbench.studies.passes import conduct
from attnbench.studies.reading import Reading
from attnbench_plugins.studies.roles import Roles


def numbered(count, template, **special):
    """Make a tokenizer of the words w0, w1, ...; "w3+w4" is split at the plus. Special ones are <0>, <1>."""
    marks = {f"<{k}>": k for k in special.values()}
    names = {f"w{k}": k for k in range(count) if k not in special.values()}
    raw = Tokenizer(models.WordLevel({**marks, **names, "+": count}, unk_token="<0>"))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("+", "isolated")]
    )
    raw.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[*marks.items()] if "<" in template else []
    )
    given = {f"{role}_token": f"<{k}>" for role, k in special.items()}
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=512, **given)


BERT = {"template": "<1> $A <2>", "pad": 0, "cls": planted.CLS, "sep": planted.SEP}


def reading(model, tokenizer, texts=()):
    found = Reading(model, tokenizer)
    found.given = [found.sample(text) for text in texts]
    return found


def looked(model, data, study=None, methods=None, batches=()):
    (seen,) = conduct(model, [study or Roles()], data, methods, batches)
    assert not seen.failed and not seen.absent, seen
    return seen.twins


def roles_of(table):
    """Return the roles of each head that has any."""
    found = {}
    for (_, layer, head, role), row in table["roles"].iterrows():
        if row["has"]:
            found.setdefault((layer, head), set()).add(role)
    return found


def sentence(draw, rare):
    """Write a subject, its verb and its object, fillers between, one perhaps rare; say where they stand."""
    fillers = [planted.FILLER + draw.randrange(400) for _ in range(draw.randint(4, 9))]
    if rare:
        fillers[draw.randrange(len(fillers))] = planted.RARE + draw.randrange(99)
    cuts = sorted(draw.randint(0, len(fillers)) for _ in range(3))
    words, marks = [], {}
    for k, name in enumerate(("subject", "verb", "object")):
        words += fillers[cuts[k - 1] if k else 0 : cuts[k]]
        marks[name] = len(words)
        words.append({"subject": planted.SUBJECT, "verb": planted.VERB, "object": planted.OBJECT}[name])
        words[-1] += draw.randrange(10)
    words += fillers[cuts[-1] :]
    return words, marks


def treebank(path, count, seed):
    draw = random.Random(seed)
    blocks = []
    for _ in range(count):
        words, marks = sentence(draw, rare=False)
        head = {marks["subject"]: ("nsubj:outer", "verb"), marks["object"]: ("obj", "verb")}
        lines = []
        for k, word in enumerate(words):
            relation, on = head.get(k, ("dep", "verb"))
            at = 0 if k == marks["verb"] else marks[on] + 1
            lines.append(f"{k + 1}\tw{word}\t_\t_\t_\t_\t{at}\t{relation if at else 'root'}\t_\t_")
        blocks.append("\n".join(lines))
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return str(path)


def encoder_reading(count=40):
    tokenizer = numbered(planted.WORDS - 1, **BERT)
    draw = random.Random(5)
    texts = [" ".join(f"w{word}" for word in sentence(draw, rare=True)[0]) for _ in range(count)]
    return reading(planted.encoder(), tokenizer, texts)


def corpus(path):
    """Write every token as often as makes those from RARE on ever rarer, and the others common."""
    lines = [
        " ".join([f"w{k}"] * (900 - k if k >= planted.RARE else 1000)) for k in range(3, planted.WORDS - 1)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)
