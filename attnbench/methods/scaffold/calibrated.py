"""The template of a method: what is learned from calibration data, and a stage."""

BODY = '''@dataclass
class {title}(Method):
    """Cap every attention probability at what its head gives its keys on average, times a factor.

    y = min(x, f m_h) with m_h the mean over calibration data of each query's largest probability.
    Shapes: probs (batch, heads, queries, keys); mean_ (heads,) per layer. Source: https://arxiv.org/abs/1706.03762.
    """  # <- one imperative line, the formula, the shapes, where it comes from

    name = "{name}"
    examples = ("{name}0.5", "{name}0.25")  # <- specs that the tests run

    factor: float  # the first field is the amount in the spec: `{name}0.5`

    def __post_init__(self) -> None:
        if self.factor < 0:
            raise ValueError("the factor is not negative")

    def fit(self, model: Any, batches: list[dict[str, Tensor]]) -> None:
        import torch

        from attnbench import watch

        sums: dict[tuple[str, int], Tensor] = {{}}
        rows: dict[tuple[str, int], int] = {{}}

        def see(probs: Tensor, site: Site) -> None:  # <- what the calibration data has to tell
            if self.selects(site):
                key = site.kind, site.layer
                sums[key] = sums.get(key, 0) + probs.amax(-1).double().sum((0, 2))
                rows[key] = rows.get(key, 0) + probs.shape[0] * probs.shape[2]

        with watch(model, probs=see), torch.no_grad():
            for batch in batches:
                model(**batch)
        # a name that ends in an underscore was learned: it is stored with the record
        self.mean_ = {{key: total / rows[key] for key, total in sums.items()}}

    def probs(self, probs: Tensor, site: Site) -> Tensor:  # <- what the method does with it
        mean = self.mean_[site.kind, site.layer].to(probs)
        return probs.minimum(self.factor * mean[:, None, None])
'''

FORMULA = """

def test_its_formula():
    import torch

    from attnbench import Site, parse

    (method,) = parse("{name}0.5")
    method.mean_ = {{("encoder", 0): torch.tensor([0.8, 0.4])}}  # <- what fit would learn of two heads
    rows = torch.tensor([0.7, 0.2, 0.1]).expand(1, 2, 1, 3).clone()  # (batch, heads, queries, keys)
    found = method.probs(rows, Site("", "encoder", 0, heads=2, head_dim=4))
    assert found[0, 0, 0].tolist() == pytest.approx([0.4, 0.2, 0.1])  # <- by hand
    assert found[0, 1, 0].tolist() == pytest.approx([0.2, 0.2, 0.1])
"""
