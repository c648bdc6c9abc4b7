"""The weight of an INT8 module, as the code around it reads it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from optimum_int8 import Int8Config, quantize
from optimum_int8.errors import QuantizationError
from optimum_int8.nn import Int8Conv, Int8Embedding, Int8Linear
from optimum_int8.nn.dequantized import DequantizedWeight


def relative(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).norm() / expected.norm()).detach())


MODULES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(70, 33),
    "conv1d_of_transformers": lambda: Conv1D(33, 70),
    "conv1d": lambda: nn.Conv1d(8, 12, 3),
    "conv2d": lambda: nn.Conv2d(8, 12, (3, 2), groups=2),
    "depthwise": lambda: nn.Conv2d(8, 8, 3, groups=8),
    "embedding": lambda: nn.Embedding(40, 33),
}


def int8_of(module: nn.Module) -> Int8Linear | Int8Conv | Int8Embedding:
    if isinstance(module, nn.Embedding):
        return Int8Embedding.from_float(module)
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return Int8Conv.from_float(module)
    return Int8Linear.from_float(module)


@pytest.fixture(params=MODULES)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, Int8Linear | Int8Conv | Int8Embedding]:
    torch.manual_seed(0)
    module = MODULES[request.param]().eval()
    return module, int8_of(module)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_weight_and_bias_are_the_float_modules(pair, dtype: torch.dtype) -> None:
    module, int8 = pair
    module, int8 = module.to(dtype), int8.to(dtype)
    weight = int8.weight
    assert weight.dtype == module.weight.dtype
    assert weight.shape == module.weight.shape
    assert weight.stride() == module.weight.stride()
    assert weight.device == module.weight.device
    assert (weight - module.weight).abs().max() <= int8.weight_scale.max() * 0.51 + weight.abs().max() / 100
    assert relative(weight.double(), module.weight.double()) < 0.02
    bias = getattr(module, "bias", None)
    assert bias is None or torch.equal(int8.bias, bias)


def test_the_state_stays_int8(pair) -> None:
    module, int8 = pair
    state = int8.bfloat16().state_dict()
    assert state["weight"].dtype == torch.int8
    assert state["weight_scale"].dtype == torch.float32
    assert state["weight"].shape[-1] == 1
    again = int8_of(MODULES_BY_TYPE[type(module)](module))
    again.load_state_dict(state)
    assert torch.equal(again.weight.bfloat16(), int8.weight)


MODULES_BY_TYPE: dict[type[nn.Module], Callable[[nn.Module], nn.Module]] = dict.fromkeys(
    [nn.Linear, Conv1D, nn.Conv1d, nn.Conv2d, nn.Embedding], lambda m: randomized(copy.deepcopy(m).float())
)


def randomized(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


READS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": lambda w, x: F.linear(x, w),
    "matmul": lambda w, x: w @ x.T,
    "reflected": lambda w, x: x @ w.T,
    "transposed": lambda w, x: torch.matmul(x, w.t()),
    "einsum": lambda w, x: torch.einsum("oi,bi->bo", w, x),
    "rows": lambda w, x: w[2:5, :3],
    "gather": lambda w, x: w[torch.tensor([1, 3])],
    "arithmetic": lambda w, x: 2 * w - w.mean(0) / 3,
    "norm": lambda w, x: w.norm(dim=1),
    "concatenated": lambda w, x: torch.cat([w, w]),
    "data": lambda w, x: w.data.clone(),
    "detached": lambda w, x: w.detach() + 0,
    "vmapped": lambda w, x: torch.vmap(lambda row: w @ row)(x),
    "numpy": lambda w, x: torch.from_numpy(w.detach().numpy().copy()),
    "listed": lambda w, x: torch.tensor(w.tolist()),
    "assigned": lambda w, x: torch.zeros(w.shape).copy_(w),
    "parametric": lambda w, x: F.linear(x, nn.Parameter(w.clone())),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_every_function_reads_the_float_matrix(read: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    int8 = Int8Linear.from_float(nn.Linear(16, 24))
    x, weight = torch.randn(5, 16), int8.dequantize()
    with torch.no_grad():
        assert torch.equal(read(int8.weight, x), read(weight, x))


def test_shape_and_dtype_cost_nothing() -> None:
    int8 = Int8Linear.from_float(nn.Linear(2048, 2048))
    calls: list[int] = []
    original, int8.dequantize = int8.dequantize, lambda: calls.append(1) or original()  # type: ignore[method-assign, func-returns-value]
    weight = int8.weight
    assert (weight.dtype, weight.shape, weight.device.type) == (torch.float32, (2048, 2048), "cpu")
    assert not weight.requires_grad
    assert not calls
    weight.sum()
    weight.sum()
    assert len(calls) == 1


@pytest.mark.parametrize(
    "write",
    [
        lambda m: m.weight.zero_(),
        lambda m: m.weight.data.normal_(),
        lambda m: m.weight.copy_(torch.zeros(24, 16)),
        lambda m: nn.init.normal_(m.weight),
        lambda m: torch.add(torch.ones(24, 16), 1, out=m.weight),
        lambda m: m.weight.requires_grad_(True),
        lambda m: nn.Parameter(m.weight),
        lambda m: setattr(m, "weight", nn.Parameter(torch.zeros(24, 16))),
        lambda m: setattr(m, "weight", torch.zeros(24, 16)),
    ],
)
def test_writing_is_our_error(write: Callable[[nn.Module], object]) -> None:
    int8 = Int8Linear.from_float(nn.Linear(16, 24))
    before = int8.dequantize()
    with pytest.raises(QuantizationError, match="INT8"):
        write(int8)
    assert torch.equal(int8.weight.clone(), before)


def test_tied_weights_lie_at_one_address() -> None:
    table = nn.Embedding(40, 16)
    head = nn.Linear(16, 40, bias=False)
    head.weight = table.weight
    int8, other = Int8Embedding.from_float(table), Int8Linear.from_float(head)
    assert other.weight.data_ptr() != int8.weight.data_ptr()
    other.tie(int8)
    assert other.weight.data_ptr() == int8.weight.data_ptr()


def test_copies_and_pickles_of_a_weight_are_plain_tensors() -> None:
    int8 = Int8Linear.from_float(nn.Linear(16, 24))
    for made in (copy.deepcopy(int8.weight), pickle.loads(pickle.dumps(int8.weight))):
        assert type(made) is Tensor
        assert torch.equal(made, int8.dequantize())
    for module in (copy.deepcopy(int8), pickle.loads(pickle.dumps(int8))):
        assert torch.equal(module.weight.clone(), int8.dequantize())
    assert repr(int8.weight) == repr(int8.dequantize())


def test_gradients_flow_through_what_reads_it() -> None:
    int8 = Int8Linear.from_float(nn.Linear(16, 24))
    x = torch.randn(3, 16, requires_grad=True)
    F.linear(x, int8.weight).sum().backward()
    assert torch.allclose(x.grad, int8.dequantize().sum(0).expand(3, 16))


class Cast(nn.Module):
    """Casts to the dtype of a weight (Mamba, Wav2Vec2, PEFT's LoRA)."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(64, 64)
        self.b = nn.Linear(64, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).to(self.b.weight.dtype))


class Tied(nn.Module):
    """An autoencoder that decodes by the transposed weight of its encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.relu(self.a(x)), self.a.weight.t())


class Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + F.linear(x, self.a.weight, self.a.bias)


class LeftProduct(nn.Module):
    """As `dt_proj.weight @ x` of Mamba."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return (self.a.weight @ self.a(x).transpose(1, 2)).transpose(1, 2)


class Packed(nn.Module):
    """As WavLM calls torch's attention on the weights of its projections."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o, self.a = (nn.Linear(64, 64) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.a(x).transpose(0, 1)
        return F.multi_head_attention_forward(
            *(rows, rows, rows, 64, 4, torch.empty(0)),
            torch.cat([self.q.bias, self.k.bias, self.v.bias]),
            *(None, None, False, 0.0, self.o.weight, self.o.bias),
            training=False,
            use_separate_proj_weight=True,
            q_proj_weight=self.q.weight,
            k_proj_weight=self.k.weight,
            v_proj_weight=self.v.weight,
        )[0].transpose(0, 1)


class Table(nn.Module):
    """A language model's head on the table of its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 64)
        self.a = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.table((x[..., 0] * 10).abs().long())
        return self.a(rows.to(self.table.weight.dtype)) @ self.table.weight.T


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("approach", ["dynamic", "static"])
@pytest.mark.parametrize("kind", [Cast, Tied, Reads, LeftProduct, Packed, Table])
def test_models_that_read_weights(kind: type[nn.Module], approach: str, fuse: bool) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(kind()).eval(), torch.randn(2, 5, 64)
    int8 = quantize(model, Int8Config(approach=approach, fuse=fuse), [(x,)], progress=False)
    with torch.no_grad():
        for _ in range(2):
            assert relative(int8(x), model(x)) < 0.03


@pytest.mark.slow
def test_torch_compile_reads_the_float_matrix() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(Reads()).eval(), torch.randn(2, 5, 64)
    int8 = quantize(model, Int8Config(fuse=False), progress=False)
    with torch.no_grad():
        assert relative(torch.compile(int8, backend="eager")(x), int8(x)) < 1e-5


def test_an_access_is_a_view_made_anew() -> None:
    int8 = Int8Linear.from_float(nn.Linear(16, 24))
    assert type(int8.weight) is DequantizedWeight
    before = int8.weight.clone()
    other = Int8Linear.from_float(nn.Linear(16, 24))
    int8.load_state_dict(other.state_dict())
    assert torch.equal(int8.weight.clone(), other.dequantize())
    assert not torch.equal(int8.weight.clone(), before)
