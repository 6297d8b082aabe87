"""The template of a method: what a few steps of training learn, the model frozen, and a stage."""

BODY = '''@dataclass
class {title}(Method):
    """Scale each head by a gate that is trained against the task's loss and a penalty, the model frozen.

    y = g_h context_h, g after that many steps of gradient descent on loss + 0.01 sum |g|, from 1, in 0 to 1.
    Shapes: context (batch, heads, queries, head_dim); gates_ (heads,) per layer. Needs labels.
    Source: https://arxiv.org/abs/1706.03762.
    """  # <- one imperative line, the formula, the shapes, where it comes from

    name = "{name}"
    examples = ("{name}5",)  # <- specs that the tests run: a few steps
    zero = 0  # <- the amount that changes nothing, where there is one

    steps: int  # the first field is the amount in the spec: `{name}5`

    def fit(self, model: Any, batches: list[dict[str, Tensor]]) -> None:
        import torch

        from attnbench import apply, discover

        device = next(model.parameters()).device
        # a name that ends in an underscore was learned: it is stored with the record
        self.gates_ = {{
            (site.kind, site.layer): torch.ones(site.heads, device=device, requires_grad=True)
            for site in discover(model)
            if self.selects(site)
        }}
        gates = list(self.gates_.values())
        optimizer = torch.optim.SGD(gates, lr=0.1)
        with apply(model, self), torch.enable_grad():
            for step in range(self.steps):
                loss = model(**batches[step % len(batches)]).loss + 0.01 * sum(g.abs().sum() for g in gates)
                # the gates' gradients alone: the model's weights, flags and gradients stay as they are
                for gate, slope in zip(gates, torch.autograd.grad(loss, gates), strict=True):
                    gate.grad = slope
                optimizer.step()  # <- the training step
                for gate in gates:
                    gate.data.clamp_(0, 1)
        for gate in gates:
            gate.requires_grad_(False).grad = None

    def context(self, context: Tensor, site: Site) -> Tensor:  # <- what the method does with it
        return context * self.gates_[site.kind, site.layer].to(context.dtype)[:, None, None]
'''

FORMULA = """

def test_its_formula():
    import torch

    from attnbench import Site, parse

    (method,) = parse("{name}5")
    method.gates_ = {{("encoder", 0): torch.tensor([1.0, 0.25])}}  # <- what fit would learn of two heads
    context = torch.tensor([2.0, 4.0]).expand(1, 2, 1, 2).clone()  # (batch, heads, queries, head_dim)
    found = method.context(context, Site("", "encoder", 0, heads=2, head_dim=2))
    assert found[0, :, 0].tolist() == [[2.0, 4.0], [0.5, 1.0]]  # <- by hand
"""
