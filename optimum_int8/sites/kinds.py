"""Every kind of site, in the order in which a module is offered to them."""

from __future__ import annotations

from typing import Any

from ..nn.call_modules import ADD, CAT, MATMUL
from .attention import AttentionKind
from .bfloat16_attention import Bfloat16AttentionKind
from .calls import CallKind
from .conv import ConvKind
from .conv3d import Conv3dKind
from .embedding import EmbeddingKind
from .embedding_bag import EmbeddingBagKind
from .experts import ExpertsKind
from .kind import SiteKind
from .linear import LinearKind
from .pool import PoolKind
from .recurrent import RecurrentKind
from .scores import ScoresKind

BUILT_IN: tuple[SiteKind[Any], ...] = (
    LinearKind(),
    ConvKind(),
    Conv3dKind(),
    EmbeddingKind(),
    EmbeddingBagKind(),
    PoolKind(),
    RecurrentKind(),
    ScoresKind(),
    ExpertsKind(),
    AttentionKind(),
    Bfloat16AttentionKind(),
    CallKind(MATMUL),
    CallKind(ADD),
    CallKind(CAT),
)
