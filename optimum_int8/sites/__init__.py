"""Sites: what of a model becomes INT8, kind by kind, and the reason of all that stays FP32."""

from .collect import (
    ATTENTION,
    BFLOAT16_ATTENTION,
    CONV,
    CORES,
    EMBEDDING,
    EXPERTS,
    LINEAR,
    POOL,
    SCORES,
    Sites,
    bare_parameters,
    collect_sites,
    find_sites,
    require_sites,
)
from .functional.expose import conceal, describe_functional, expose
from .functional.expose_experts import conceal_experts, describe_experts, expose_experts
from .functional.routers import find_routers
from .functional.source_weights import find_experts, find_linears
from .functional.traced_weights import find_functional

__all__ = [
    "ATTENTION",
    "BFLOAT16_ATTENTION",
    "CONV",
    "CORES",
    "EMBEDDING",
    "EXPERTS",
    "LINEAR",
    "POOL",
    "SCORES",
    "Sites",
    "bare_parameters",
    "collect_sites",
    "conceal",
    "conceal_experts",
    "describe_experts",
    "describe_functional",
    "expose",
    "expose_experts",
    "find_experts",
    "find_functional",
    "find_linears",
    "find_routers",
    "find_sites",
    "require_sites",
]
