"""What tracing leaves out changes no graph, and nothing after it."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch._dynamo import config as dynamo_config
from torch._subclasses import fake_impls
from torch.fx.experimental import _config as shape_config
from torch.fx.experimental import proxy_tensor

from optimum_int8.fx.tracing import cheap_tracing


def settings() -> tuple[Any, ...]:
    return (
        gc.isenabled(),
        dynamo_config.fake_tensor_cache_enabled,
        shape_config.use_duck_shape,  # type: ignore[attr-defined]
        getattr(fx.config, "do_not_emit_stack_traces", None),
        getattr(proxy_tensor, "_extract_tensor_metadata", None),
        dict(getattr(fake_impls, "FAST_OP_IMPLEMENTATIONS", {})),
    )


@pytest.mark.parametrize("collects", [True, False])
def test_all_is_as_before_also_after_an_error(collects: bool) -> None:
    fake_impls.get_fast_op_impls()
    enabled = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        before = settings()
        with pytest.raises(ZeroDivisionError), cheap_tracing():
            assert settings() != before
            raise ZeroDivisionError
        assert settings() == before
    finally:
        (gc.enable if enabled else gc.disable)()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_has_the_layout_that_torch_gives_it(affine: bool, layout: torch.memory_format) -> None:
    """Views after it depend on strides: as torch derives them from the operators inside."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(4, affine=affine)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x).permute(0, 2, 3, 1).reshape(-1, 4)

    x = torch.randn(3, 4, 5, 6).to(memory_format=layout)
    exports = []
    for context in (cheap_tracing(), shape_config.patch(use_duck_shape=False)):  # type: ignore[attr-defined]
        with context:
            shapes = (dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO),)
            exports.append(torch.export.export(Net().eval(), (x,), dynamic_shapes=shapes, strict=False))
    cheap, own = ([n for n in e.graph.nodes if n.op == "call_function"] for e in exports)
    assert [n.target for n in cheap] == [n.target for n in own]
    for a, b in zip(cheap, own, strict=True):
        assert str(a.meta["val"].shape) == str(b.meta["val"].shape)
        assert str(a.meta["val"].stride()) == str(b.meta["val"].stride())
        assert a.meta["val"].dtype == b.meta["val"].dtype
