"""The modules of Sentence Transformers behind a model: pooling tokens to a vector, and what changes the vector after that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError

POOLINGS = ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""How Sentence Transformers pools tokens; several are concatenated."""

_VECTOR = "sentence_embedding"


def pool_tokens(states: Tensor, mask: Tensor, modes: Sequence[str], skipped: int = 0) -> Tensor:
    """Vectors `[batch, width * modes]` of hidden states.

    Args:
        states: `[batch, tokens, width]`.
        mask: `[batch, tokens]`; 0 is padding.
        modes: some of `POOLINGS`.
        skipped: tokens at the start of each text that do not count, those of a prompt.
    """
    positions = torch.arange(mask.shape[1]) - mask.int().argmax(
        dim=1, keepdim=True
    )  # 0 is the first that is not padding
    counted = mask.bool() & (positions >= skipped)
    weights = counted.unsqueeze(-1).to(states.dtype)
    rows = torch.arange(len(states))
    pooled = []
    for mode in modes:
        if mode == "cls":
            pooled.append(states[rows, counted.int().argmax(dim=1)])
        elif mode == "lasttoken":
            pooled.append(states[rows, counted.shape[1] - 1 - counted.flip(1).int().argmax(dim=1)])
        elif mode == "max":
            pooled.append(states.masked_fill(~counted.unsqueeze(-1), -torch.inf).amax(dim=1))
        elif mode == "weightedmean":
            by_position = weights * (positions + 1).unsqueeze(-1)
            pooled.append((states * by_position).sum(dim=1) / by_position.sum(dim=1).clamp(min=1))
        else:
            number = weights.sum(dim=1).clamp(min=1)
            pooled.append((states * weights).sum(dim=1) / (number if mode == "mean" else number.sqrt()))
    return torch.cat(pooled, dim=-1)


class Dense(nn.Module):
    """A linear, an activation and perhaps a residual sum, of vectors."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        inputs = config["in_features"]
        outputs = config["out_features"]
        self.linear = nn.Linear(inputs, outputs, bias=config.get("bias", True))
        self.activation = _activation(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
        self.adds = bool(config.get("use_residual", False))
        if self.adds and inputs != outputs:
            self.residual = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inputs]` to `[batch, outputs]`."""
        y = self.activation(self.linear(x))
        if not self.adds:
            return y
        return y + (self.residual(x) if hasattr(self, "residual") else x)


class LayerNorm(nn.Module):
    """A norm of vectors."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config["dimension"])

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, width]`, normalized."""
        return self.norm(x)


class Normalize(nn.Module):
    """Scales vectors to length 1."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, width]`, of length 1."""
        return nn.functional.normalize(x, dim=-1)


class Dropout(nn.Module):
    """Changes nothing outside training."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """The same."""
        return x


STEPS: dict[str, type[nn.Module]] = {"Dense": Dense, "LayerNorm": LayerNorm, "Normalize": Normalize, "Dropout": Dropout}
"""By class name what may follow the pooling."""


def make_step(kind: str, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """The module of Sentence Transformers with these settings and weights.

    Raises:
        ConfigError: it reads or writes something else than the vector, or the weights are not its own.
    """
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, _VECTOR):
            raise ConfigError(f"its {kind} has {key} {config[key]!r}; expected {_VECTOR!r}")
    try:
        step = STEPS[kind](config)
        step.load_state_dict(dict(weights))
    except (KeyError, TypeError, RuntimeError) as error:
        raise ConfigError(f"its {kind} cannot be read: {' '.join(str(error).split())}") from error
    return step.float().eval()


def _activation(name: Any) -> nn.Module:
    """Only what torch calls an activation: the name comes from a file."""
    path, _, leaf = str(name).rpartition(".")
    known = {"torch.nn.modules.activation": nn.modules.activation.__all__, "torch.nn.modules.linear": ["Identity"]}
    if leaf not in known.get(path, ()):
        raise ConfigError(f"its Dense has the activation {name!r}; expected one of torch.nn.modules.activation")
    made: nn.Module = getattr(nn, leaf)()
    return made
