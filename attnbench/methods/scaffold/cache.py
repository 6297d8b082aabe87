"""The template of a method: what is kept of a prompt."""

BODY = '''@dataclass
class {title}(Method):
    """Keep the tokens of a prompt whose values have the largest norm.

    Of n tokens each key-value head keeps the n - floor(n p / 100) of the largest L2 norm of their value, ties
    to the lower index. Shapes: values (key-value heads, tokens, head_dim). Source:
    https://arxiv.org/abs/1706.03762.
    """  # <- one imperative line, the formula, the shapes, where it comes from

    name = "{name}"
    examples = ("{name}50", "{name}20")  # <- specs that the tests run
    zero = 0  # <- the amount that changes nothing, where there is one

    percent: float  # the first field is the amount in the spec: `{name}50`

    def __post_init__(self) -> None:
        if not 0 <= self.percent < 100:
            raise ValueError("the share to evict is at least 0 and under 100 percent")

    # called once for each example and site, when the prompt is complete: it sees all of its queries, so that
    # `rows` plays no part, and none after it, but with `ahead = True`; nothing may be remembered
    def cache(self, prompt: Prompt, site: Site) -> Kept:
        keep = prompt.tokens - int(prompt.tokens * self.percent / 100)
        # <- by what tokens are chosen: prompt.keys, values, queries, and, `for rows in prompt.tiles()`, the
        # dense attention prompt.probs(rows), (heads, rows, tokens)
        worth = prompt.values.float().norm(dim=-1)  # (key-value heads, tokens)
        order = worth.argsort(dim=-1, descending=True, stable=True)
        return Kept(tokens=order.argsort(dim=-1) < keep)  # <- keys= and values= where they change, and bits=
'''

FORMULA = """

def test_its_formula():
    import torch

    from attnbench import Prompt, Site, parse

    (method,) = parse("{name}50")
    values = torch.tensor([[[3.0], [-4.0], [1.0], [2.0]]])  # (key-value heads, tokens, head_dim)
    prompt = Prompt(values, values, values, attend=lambda rows: values)
    found = method.cache(prompt, Site("", "decoder", 0, heads=1, head_dim=1))
    assert found.tokens.tolist() == [[True, True, False, False]]  # <- by hand
"""
