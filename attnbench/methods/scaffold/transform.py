"""The template of a method: a stage that changes attention as it comes."""

BODY = '''@dataclass
class {title}(Method):
    """Cap every attention probability at a share of one.

    y = min(x, p / 100); no renormalisation. Shapes: probs (batch, heads, queries, keys).
    Source: https://arxiv.org/abs/1706.03762.
    """  # <- one imperative line, the formula, the shapes, where it comes from

    name = "{name}"
    examples = ("{name}50", "{name}20")  # <- specs that the tests run
    zero = 100  # <- the amount that changes nothing, where there is one
    # rows = "all"  <- where a query needs other queries' rows: not applicable to causal attention then

    percent: float  # the first field is the amount in the spec: `{name}50`

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ValueError("the cap is between 0 and 100 percent")

    def probs(self, probs: Tensor, site: Site) -> Tensor:  # <- or hidden, scores, normalize, context
        most = self.percent / 100
        return probs.clamp(max=most) if probs.requires_grad else probs.clamp_(max=most)
'''

FORMULA = """

def test_its_formula():
    import torch

    from attnbench import transform

    row = torch.tensor([0.7, 0.2, 0.1, 0.0])
    assert transform("{name}50", row).tolist() == pytest.approx([0.5, 0.2, 0.1, 0.0])  # <- by hand
"""
