"""The template of a head criterion: which heads go first; ranking, removal and realisation are `Heads`'s."""

BODY = '''@dataclass
class {title}(Heads):
    """Remove the heads that add least: the mean length of what a head reads counts as its importance.

    importance_h = mean over examples and queries of the L2 norm of context_h. Shapes: context (batch, heads,
    queries, head_dim), scores_ (heads,) per layer. Source: https://arxiv.org/abs/1905.10650.
    """  # <- one imperative line, the formula, the shapes, where it comes from

    name = "{name}"
    examples = ("{name}50",)  # <- specs that the tests run; the amount is the share of heads that go

    def worth(self, context: Tensor) -> Tensor:  # <- what a head is worth to a query: (batch, heads, queries)
        return context.double().norm(dim=-1)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> dict[tuple[str, int], Tensor]:
        import torch

        from attnbench import watch

        sums: dict[tuple[str, int], Tensor] = {{}}
        rows: dict[tuple[str, int], int] = {{}}

        def see(context: Tensor, site: Site) -> None:
            if self.selects(site):
                key = site.kind, site.layer
                sums[key] = sums.get(key, 0) + self.worth(context).sum((0, 2))
                rows[key] = rows.get(key, 0) + context.shape[0] * context.shape[2]

        with watch(model, context=see), torch.no_grad():  # <- or probs=, scores=, hidden=
            for batch in batches:
                model(**batch)
        return {{key: (total / rows[key]).float() for key, total in sums.items()}}  # higher is more important
'''

FORMULA = """

def test_its_formula():
    import torch

    from attnbench import parse

    (method,) = parse("{name}50")
    context = torch.tensor([[[[3.0, 4.0]], [[0.0, 1.0]]]])  # (batch, heads, queries, head_dim)
    assert method.worth(context).tolist() == [[[5.0], [1.0]]]  # <- by hand
"""
