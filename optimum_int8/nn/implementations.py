"""Which attention cores the parts of a model run: asked, set and restored by their names in Transformers' attention interface."""

from __future__ import annotations

from torch import nn
from transformers.modeling_utils import PreTrainedModel

from .attention import uses_attention_interface
from .core_caller import CoreCaller
from .cores import choose_implementations
from .families.multihead import UnpackedMultiheadAttention

_UNPACKED = (UnpackedMultiheadAttention, CoreCaller)


def attentions(model: nn.Module) -> dict[str, str]:
    """By name of each module that chooses one, the attention core: what `restore_attention` takes."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel):
            found[name] = module.config._attn_implementation
        elif isinstance(module, _UNPACKED):
            found[name] = module.attention
    return found


def outermost_transformers(model: nn.Module) -> dict[str, PreTrainedModel]:
    """By path the Transformers models in `model`, itself among them, that no other one contains."""
    found: dict[str, PreTrainedModel] = {}
    for path, module in model.named_modules():
        if isinstance(module, PreTrainedModel) and not any(
            not outer or path.startswith(f"{outer}.") for outer in found
        ):
            found[path] = module
    return found


def set_attention(model: nn.Module, implementation: str) -> None:
    """Choose the attention core of a model, and of Transformers models inside it, by its name in Transformers' interface, where their
    attention is one that cores can express: see `choose_implementations`."""
    for transformer in outermost_transformers(model).values():
        asks = any(uses_attention_interface(m) and not isinstance(m, _UNPACKED) for m in transformer.modules())
        if asks:
            others = choose_implementations(transformer, implementation)
            transformer.set_attn_implementation(implementation)
            for config, chosen in others:
                config._attn_implementation_internal = chosen
    for module in model.modules():
        if isinstance(module, _UNPACKED):
            module.attention = implementation


def restore_attention(model: nn.Module, before: dict[str, str]) -> None:
    """Undo `set_attention`. Each part gets back its own: Transformers' setter refuses what a part without attention cannot do."""
    for name, implementation in before.items():
        module = model.get_submodule(name)
        if isinstance(module, PreTrainedModel):
            module.config._attn_implementation = implementation
        else:
            module.attention = implementation  # type: ignore[assignment]
