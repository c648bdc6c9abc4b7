"""`SiteKind`: everything that differs between one kind of site and another, in one object.

A file of this folder defines a kind and registers it. What goes over the sites of a model (calibration, conversion, loading, training, the
accuracy budget, recipes, checkpoints) asks a site's kind and knows none by name. The defaults here are those of a module with one input,
`"input"`, whose INT8 module takes its place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from ..config import Int8Config
from ..nn.base import Int8Module
from ..nn.fake import FakeQuantize
from ..observers import Observer, make_observer
from .functional.describe import check_weights, describe_weight, is_weight_description
from .functional.expose import expose
from .install import replace_module, set_qparams
from .settings import (
    Calibrated,
    FakeQuantization,
    Observe,
    Quantization,
    RecipeEntry,
    RecipeTraits,
    Storage,
    Verdict,
    Visit,
)
from .visit import visit_modules

M = TypeVar("M", bound=nn.Module)
"""The float modules of a kind."""


class SiteKind(Generic[M]):
    """A kind of site: `SiteKind[nn.Linear]`.

    Its methods are, in this order, about matching (`matches`, `obstacle`), calibration (`rows` to `judge`), conversion (`from_float` to
    `activate`), checkpoints (`empty` to `has_place`), training (`fake` to `activate_fake`), the accuracy budget (`visited` to `saved_bytes`)
    and recipes (`from_recipe`).

    Attributes:
        name: as in `Sites.int8` and in `config.json`.
        inputs: names of what a site quantizes, in the order of its arguments.
        symmetric: whether the zero point of these is 0.
        recipe: the ops of recipes that are such sites.
        takes_place: whether the INT8 module stands where the float module stood.
        holds_weights: whether a model with such sites alone has something to quantize.
        shares_weight: whether INT8 modules of other kinds may share its weight, and are made after it.
        loads_by_weight: whether a checkpoint of another class finds a site's place by its tensor `weight`.
        is_int8: whether a card counts a site among the INT8 modules.
        excluded_by: the setting of `Int8Config` that leaves a site in FP32 by its name.
        needs_ranges: whether a site of a static model that no calibration data reached stays FP32.
        may_lack_ranges: whether one whose inputs held nothing that counts stays INT8 all the same.
        may_measure_per_token: whether a site of a static model may measure a range per token.
        corrects_bias: whether `Int8Config.bias_correction` may change the bias.
        searches_weight: whether `Int8Config.weight_range` may choose the scales of the weight.
        float_in_training: why sites stay FP32 in a model to be trained; empty where they are fake-quantized.
    """

    name: str
    inputs: tuple[str, ...] = ("input",)
    symmetric = False
    recipe = RecipeTraits()
    takes_place = True
    holds_weights = False
    shares_weight = False
    loads_by_weight = False
    is_int8 = True
    excluded_by = "exclude"
    needs_ranges = True
    may_lack_ranges = False
    may_measure_per_token = False
    corrects_bias = False
    searches_weight = False
    float_in_training = "it has no fake-quantized form"

    def matches(self, module: nn.Module, config: Int8Config) -> bool:
        """Whether a float module is a site of this kind under `config`."""
        raise NotImplementedError

    def obstacle(self, name: str, module: M, config: Int8Config) -> str:
        """Why a module that matches stays FP32; empty where nothing keeps it."""
        return ""

    def rows(self, module: M, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
        """Of the arguments of a call, what is quantized, by the names of its ranges, as `[..., channels]`."""
        return {"input": inputs[0]}

    def output_rows(self, module: M, output: Tensor) -> Tensor:
        """The result of a call as `[..., channels]`."""
        return output

    def observer(self, config: Int8Config) -> Observer:
        """What watches one input."""
        return make_observer(config, symmetric=self.symmetric)

    def counts_tokens(self, config: Int8Config) -> bool:
        """Whether calibration also measures what each token would lose by the range."""
        return False

    @contextlib.contextmanager
    def observed(self, model: nn.Module, modules: Sequence[nn.Module], observe: Observe) -> Iterator[None]:
        """Within, `observe` is told of each call of the float `modules`."""

        def told(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            observe(module, inputs or tuple(named.values()))  # torch's modules may be called as `linear(input=x)`

        handles = [module.register_forward_pre_hook(told, with_kwargs=True) for module in modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def judge(self, site: Calibrated) -> Verdict:
        """What becomes of a calibrated site; called once, before it is converted."""
        return Verdict()

    def from_float(self, module: M, how: Quantization) -> Int8Module:
        """The INT8 module of a float one."""
        raise NotImplementedError

    def convert(
        self, model: nn.Module, name: str, make: Callable[[], Int8Module], shared: dict[int, Int8Module]
    ) -> None:
        """Install what `make` makes at a site.

        Args:
            shared: by `id` of a float weight, the INT8 module that holds its values for others.
        """
        self.install(model, name, make())

    def install(self, model: nn.Module, name: str, new: Int8Module) -> None:
        """Bring an INT8 module into the model, everywhere the module at `name` is used."""
        replace_module(model, model.get_submodule(name), new)

    def activate(self, model: nn.Module) -> None:
        """Once all INT8 modules are installed: what the model as a whole needs to run them."""

    def empty(self, module: nn.Module, how: Storage) -> Int8Module | None:
        """An INT8 module without values in the place of `module`; None where `module` is not such a site."""
        raise NotImplementedError

    def describe(self, model: nn.Module, name: str) -> dict[str, Any] | None:
        """What `expose` and `empty` need to know of an INT8 site that is no module in the model's own code; None where it is one."""
        return describe_weight(model, name)

    def accepts_description(self, name: str, about: Mapping[str, Any] | None) -> bool:
        """Whether `describe` could have made this; None stands for no description."""
        return about is None or is_weight_description(name, about)

    def check_source(self, model: nn.Module, described: Mapping[str, Mapping[str, Any]]) -> None:
        """Raises `CheckpointError` where the float model has no place for sites of this description."""
        check_weights(model, described)

    def expose(self, model: nn.Module, described: Mapping[str, Mapping[str, Any]]) -> None:
        """Make modules of the sites that are none in the model's own code, in place."""
        expose(model, described)

    def has_place(self, place: str, modules: Collection[str], tensors: Collection[str], described: bool) -> bool:
        """Whether a float model with these modules and tensors has a site of this kind at `place`."""
        if described:
            return place.rpartition(".")[0] in tensors
        return f"{place}.weight" in tensors if self.loads_by_weight else place in modules

    def fake(self, module: M, how: FakeQuantization) -> None:
        """Make a float module compute as its INT8 counterpart will, in place."""
        raise NotImplementedError

    def fake_quantizers(self, module: Any) -> dict[str, FakeQuantize]:
        """Of a fake-quantized module, its fake quantizers by the names of its ranges."""
        return {}

    def unfake(self, module: Any) -> None:
        """The inverse of `fake`."""
        raise NotImplementedError

    def activate_fake(self, model: nn.Module) -> None:
        """As `activate`, for fake-quantized modules."""

    @contextlib.contextmanager
    def visited(
        self, model: nn.Module, int8: Mapping[str, Int8Module], visit: Visit, instead: Int8Module | None = None
    ) -> Iterator[None]:
        """Within, every call of the float sites is handed to `visit`.

        Args:
            int8: site to INT8 module.
            instead: computes attention cores in the place of float32.
        """
        with visit_modules(model, int8, visit):
            yield

    def multiply_adds(self, module: M, inputs: tuple[Any, ...], output: Tensor) -> int:
        """Of one call of the float module."""
        return 0

    def saved_bytes(self, module: M, int8: Int8Module) -> int:
        """Float32 bytes of a module less the stored bytes of its INT8 counterpart."""
        stored = sum(tensor.numel() * tensor.element_size() for tensor in int8.state_dict().values())
        return sum(parameter.numel() * 4 for parameter in module.parameters()) - stored

    def from_recipe(self, module: M, entry: RecipeEntry) -> Int8Module:
        """The INT8 module of a float one, with the quantization parameters of a recipe to the bit."""
        new = self.from_float(module, Quantization(entry.ranges(self.inputs), entry.per_channel))
        set_qparams(new, dict(zip(self.inputs, entry.inputs, strict=False)))
        return new
