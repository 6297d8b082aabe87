"""The template of a study: it looks at a model, a method applied or none, and changes nothing."""

BODY = '''@dataclass
class {title}(Study):
    """Report how much of a head's attention its most attended key gets.

    largest = mean over examples and queries of max_k p[q, k]. Shapes: probs (batch, heads, queries, keys).
    Source: https://aclanthology.org/P19-1580/.
    """  # <- one imperative line, the formula, the shapes, where it comes from

    name = "{name}"
    examples = ("{name}",)  # <- specs that the tests run
    shown = ("largest",)  # <- columns of the table `heads` that are printed and drawn, at most three

    def begin(self, model: Any, sites: list[Site]) -> None:  # before the first batch of each method
        self.sums: dict[tuple[str, int], Any] = {{}}
        self.rows: dict[tuple[str, int], int] = {{}}

    def probs(self, probs: Tensor, site: View) -> None:  # <- or hidden, scores, context: to read, not to keep
        key = site.kind, site.layer
        found = probs.amax(-1).double().sum((0, 2)).cpu().numpy()  # <- sums and counts, in float64
        self.sums[key] = self.sums.get(key, 0) + found
        self.rows[key] = self.rows.get(key, 0) + probs.shape[0] * probs.shape[2]

    def tables(self) -> dict[str, Any]:
        largest = {{key: total / self.rows[key] for key, total in self.sums.items()}}
        return {{"heads": by_head({{"largest": largest}})}}
'''

FORMULA = """

def test_its_formula():
    import torch

    from attnbench import View, plugins

    study = plugins.registry().studies["{name}"]()
    study.begin(None, [])
    probs = torch.tensor([[[[0.75, 0.25], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]]])  # two heads, two queries
    study.probs(probs, View("", "encoder", 0, heads=2, head_dim=4))
    assert study.tables()["heads"]["largest"].tolist() == [0.625, 1.0]  # <- by hand
"""
