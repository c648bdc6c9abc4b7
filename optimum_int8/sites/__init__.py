"""Sites: what of a model becomes INT8, kind by kind, and the reason of all that stays FP32."""

from .attention import ATTENTION
from .bfloat16_attention import BFLOAT16_ATTENTION
from .collect import Sites, bare_parameters, collect_sites, find_sites, require_sites
from .conv import CONV
from .embedding import EMBEDDING
from .embedding_bag import EMBEDDING_BAG
from .experts import EXPERTS
from .functional.expose import conceal, expose
from .functional.expose_experts import conceal_experts, expose_experts
from .functional.routers import find_routers
from .functional.source_weights import find_experts, find_linears
from .functional.traced_weights import find_functional
from .kind import SiteKind
from .kinds import BUILT_IN
from .linear import LINEAR
from .pool import POOL
from .recurrent import RECURRENT
from .registry import KINDS, kind_of, recipe_traits, register
from .scores import SCORES
from .settings import (
    Calibrated,
    Compute,
    FakeQuantization,
    Quantization,
    Range,
    RecipeEntry,
    RecipeTraits,
    Storage,
    Verdict,
    Visit,
)

__all__ = [
    "ATTENTION",
    "BFLOAT16_ATTENTION",
    "CONV",
    "Calibrated",
    "Compute",
    "EMBEDDING",
    "EMBEDDING_BAG",
    "EXPERTS",
    "FakeQuantization",
    "KINDS",
    "LINEAR",
    "POOL",
    "Quantization",
    "Range",
    "RecipeEntry",
    "RecipeTraits",
    "RECURRENT",
    "SCORES",
    "SiteKind",
    "Sites",
    "Storage",
    "Verdict",
    "Visit",
    "bare_parameters",
    "collect_sites",
    "conceal",
    "conceal_experts",
    "expose",
    "expose_experts",
    "find_experts",
    "find_functional",
    "find_linears",
    "find_routers",
    "find_sites",
    "kind_of",
    "recipe_traits",
    "register",
    "require_sites",
]

for _kind in BUILT_IN:
    register(_kind)
