"""What a method leaves behind is found: checksums, torch beside the model, values that are not finite."""

from __future__ import annotations

import pytest
import torch
from tiny_models import padded, tiny

from attnbench import Method, apply
from attnbench.engine.modes import BACKENDS, MODES, backend
from attnbench.engine.whole import PERIOD, Process, checksum, difference, snapshot
from attnbench.measures.finite import require_finite

EDITS = {
    "one weight a little": lambda weight: weight[3, 5].add_(1e-7),
    "all weights": lambda weight: weight.mul_(0.5),
    "signs": lambda weight: weight.neg_(),
    "the order of rows": lambda weight: weight.copy_(weight.flip(0)),
    "the order in rows": lambda weight: weight.copy_(weight.roll(1, 1)),
    "two that even out": lambda weight: weight[0, :2].add_(torch.tensor([1.0, -1.0])),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rows", [5, 2 * PERIOD // 8])
def test_a_checksum_changes_with(edit, dtype, rows):
    weight = torch.randn(rows, 17, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight[3, 5] = 0  # where a little is not rounded away
    before, version = checksum(weight), weight._version
    assert torch.equal(before, checksum(weight.clone())) and weight._version == version
    EDITS[edit](weight.data)
    assert not torch.equal(before, checksum(weight))


@pytest.mark.parametrize("count", range(20))
def test_a_checksum_sees_each_byte(count):
    data = torch.zeros(count, dtype=torch.uint8)
    seen = {int(checksum(data))}
    for place in range(count):
        data[place] = 1
        seen.add(int(checksum(data)))
        data[place] = 0
    assert len(seen) == count + 1
    assert torch.equal(checksum(torch.arange(count + 1)[1:]), checksum(torch.arange(1, count + 1)))


def hooked():
    return torch.nn.modules.module.register_module_forward_hook(lambda *_: None)


LEFT = {
    "function torch.softmax": lambda model: setattr(torch, "softmax", torch.sigmoid),
    "function torch.nn.functional.gelu": lambda model: setattr(torch.nn.functional, "gelu", abs),
    "class attribute BertSelfAttention.forward": lambda model: setattr(
        type(model.bert.encoder.layer[0].attention.self), "forward", abs
    ),
    "class attribute BertModel.__call__": lambda model: setattr(type(model.bert), "__call__", abs),
    "torch's global forward hooks": lambda model: hooked(),
    "torch's number of threads": lambda model: torch.set_num_threads(torch.get_num_threads() + 1),
    "torch's grad mode": lambda model: torch.set_grad_enabled(False),
    "torch's default dtype": lambda model: torch.set_default_dtype(torch.float64),
    "torch's default device": lambda model: torch.set_default_device("meta"),
    "torch's deterministic mode": lambda model: torch.use_deterministic_algorithms(True, warn_only=True),
    "torch's denormal numbers": lambda model: torch.set_flush_denormal(True),
    "torch's float32 matmul precision": lambda model: torch.set_float32_matmul_precision("medium"),
    "torch's backends": lambda model: setattr(torch.backends.mkldnn, "enabled", False),
    "torch's kinds of fused attention": lambda model: torch.backends.cuda.enable_flash_sdp(False),
    "torch's autocast": lambda model: torch.set_autocast_enabled("cpu", True),
    "torch's anomaly mode": lambda model: torch.autograd.set_detect_anomaly(True, check_nan=False),
}

WITH_MORE = ("torch's default dtype", "torch's float32 matmul precision")  # a configuration, two backends


def test_every_mode_is_tried():
    assert set(MODES) <= set(LEFT)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backends_flag_is_put_back(name):
    path, flag = name
    space = backend(path)
    known, precision = getattr(space, flag), torch.get_float32_matmul_precision()
    process = Process(tiny("bert"))
    try:
        setattr(space, flag, not known if isinstance(known, bool) else "tf32")
        assert flag != "fp32_precision" or getattr(space, flag) == "tf32"
    finally:
        process.restore()
    assert getattr(space, flag) == known and torch.get_float32_matmul_precision() == precision


@pytest.mark.parametrize("part", LEFT)
def test_torch_is_put_back(part):
    model = tiny("bert")
    before, process = snapshot(model), Process(model)
    try:
        LEFT[part](model)
        found = difference(before, snapshot(model))
        assert found is not None and found.startswith(f"{part} ")
        assert found == f"{part} changed" or part in WITH_MORE
    finally:
        process.restore()
    assert difference(before, snapshot(model)) is None


def test_a_new_function_of_a_module_is_nobodys_loss():
    model = tiny("bert")
    before = snapshot(model)
    torch.nn.functional.of_this_test = abs
    try:
        assert difference(before, snapshot(model)) is None
    finally:
        del torch.nn.functional.of_this_test


class Nan(Method):
    """NaN in a stage at one layer: everywhere, or only at keys that a query may not see."""

    name = "nan"

    def __init__(self, hidden: bool) -> None:
        super().__init__(layers=("1",))
        self.hidden_only = hidden

    def scores(self, scores, site):
        if not self.hidden_only:
            return scores * torch.nan
        return scores if site.visible is None else scores.masked_fill(~site.visible, torch.nan)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("hidden", [False, True])
def test_values_that_are_not_finite_are_found_in_what_attention_gives(name, hidden):
    model = tiny(name)
    with torch.no_grad(), apply(model, Nan(hidden)) as applied:
        model(**padded(model))
    if hidden:
        assert applied.strange() == ""
    else:
        assert applied.strange().startswith("nan at ") and " layer 1) made values" in applied.strange()


def test_a_measurement_is_finite():
    require_finite({"bits": None, "latency": {"ratio": 1.5}, "samples": 3})
    with pytest.raises(ArithmeticError, match="latency ratio is inf"):
        require_finite({"latency": {"ratio": float("inf")}})
