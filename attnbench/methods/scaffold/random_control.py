"""The template of a random control: the budget of a method, spent on what chance chooses."""

BODY = '''@dataclass
class {title}(Method):
    """Zero a random share of each query's attention: what a method that chooses has to beat.

    Of the n probabilities that a query may see, min(floor(n p / 100), n - 1) become 0, those of the smallest
    u in (0, 1), drawn by a hash of (seed, site, head, query, key): the same in any batch. Shapes: probs
    (batch, heads, queries, keys). Source: the control that the claim of
    https://aclanthology.org/2021.findings-acl.363/ needs.
    """  # <- one imperative line, the formula, the shapes, whose control it is

    name = "{name}"  # tables know a control by `:random`: it stands under its method
    examples = ("{name}50", "{name}20")  # <- specs that the tests run
    zero, grows = 0, "sparsity"  # <- the amount that changes nothing; more of it leaves more zeros

    percent: float  # the first field is the amount in the spec: `{name}50`
    seed: int = field(default=0, kw_only=True)  # a run measures several

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ValueError("the share to zero is between 0 and 100 percent")

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        luck = kernels.draw(self.seed, site, probs[0], site.offset)  # (heads, queries, keys)
        if site.visible is not None:
            luck = luck * site.visible
        kept = kernels.drop_smallest(luck, self.percent, site.visible) > 0  # <- as many as the method keeps
        return probs * kept
'''

FORMULA = """

def test_its_formula():
    import torch

    from attnbench import transform

    given = torch.full((1, 4, 8, 10), 0.1)  # (batch, heads, queries, keys)
    found, other = transform("{name}50", given), transform("{name}50:seed=1", given)
    assert ((found > 0).sum(-1) == 5).all()  # <- the method's budget
    assert set(found.unique().tolist()) == {{0.0, given[0, 0, 0, 0].item()}}
    assert not torch.equal(found, other) and not torch.equal(found[0, 0], found[0, 1])
"""
