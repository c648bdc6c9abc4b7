"""`Int8Trainer`: Transformers' `Trainer` on a fake-quantized model. Hooks and overrides only; the loop is Transformers' own."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer

from ..calibration import token_masks
from ..config import Int8Config
from ..errors import CalibrationError, ConfigError
from ..hub import Pushed, push_to_hub
from ..hub.save import save_pretrained
from ..nn.tokens import counting
from .distillation import distillation_loss
from .prepare import convert_qat, is_prepared, prepare_qat
from .schedule import RangeSchedule, fake_quantizers
from .settings import QatSettings
from .tokens import without_tokens

logger = logging.getLogger(__name__)


class Int8Trainer(Trainer):
    """Trains with fake quantization, and converts and saves what comes out as an INT8 model.

    Everything that `Trainer` takes works as there: `TrainingArguments`, callbacks, metrics, `accelerate` and `torchrun`,
    mixed precision, `resume_from_checkpoint`. Checkpoints of the training hold the float weights and the ranges;
    `save_model`, `save_int8` and `push_to_hub` write the INT8 model.

    Args:
        model: the FP32 model, which is prepared in place, or one from `prepare_qat`.
        int8_config: what to quantize; the default is `Int8Config(approach="qat")`.
        settings: ranges, freezing, distillation.
        calibration_data: batches to start the ranges from; None takes examples of `train_dataset`.
        teacher: FP32 model to distil from; None takes a copy of the FP32 `model`, if `settings` ask for distillation.
        args, kwargs: as `Trainer` takes them.

    Raises:
        ConfigError: distillation from a model that is prepared already, without a teacher.
        CalibrationError: nothing to calibrate on.
        QuantizationError: as `prepare_qat`.

    Example:
        >>> trainer = Int8Trainer(model, TrainingArguments("out"), train_dataset=train)  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
        >>> trainer.save_model("my-model-int8")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | None = None,
        args: Any = None,
        *trainer_args: Any,
        int8_config: Int8Config | None = None,
        settings: QatSettings | None = None,
        calibration_data: Iterable[Any] | None = None,
        teacher: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        self.int8_config = int8_config or Int8Config(approach="qat")
        self.settings = settings or QatSettings()
        self.calibration_data = calibration_data
        self.teacher = teacher
        self._started = False
        super().__init__(model, args, *trainer_args, **kwargs)
        self._started = True
        self._prepare(self.model)
        self.add_callback(RangeSchedule(self.settings))

    def _prepare(self, model: nn.Module) -> nn.Module:
        distils = self.settings.distillation_weight > 0
        if is_prepared(model):
            if distils and self.teacher is None:
                raise ConfigError("the model is prepared already; pass the FP32 model as teacher=... to distil from it")
        else:
            if distils and self.teacher is None:
                self.teacher = copy.deepcopy(model)
            data = self._calibration_batches() if self.calibration_data is None else self.calibration_data
            device = next(model.parameters()).device
            batches = (self._to(batch, device) for batch in data)
            options: dict[str, Any] = {"inplace": True, "progress": not self.args.disable_tqdm}
            prepare_qat(model, self.int8_config, batches, learnable=self.settings.learnable, **options)
        if self.teacher is not None:
            self.teacher.to(self.args.device).eval().requires_grad_(False)
        return model

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """A fresh model for `model_init`; prepared, once the constructor is done."""
        model = super().call_model_init(trial)
        return self._prepare(model) if self._started else model

    def _calibration_batches(self) -> list[Any]:
        """Examples of the training data, the same in every process, that take no random number from the training."""
        data = self.train_dataset
        if data is None or not hasattr(data, "__len__") or not len(data):
            raise CalibrationError(
                "there is no training data of known length to calibrate on; pass calibration_data=..."
            )
        collate = self._get_collator_with_removed_columns(self.data_collator, "calibration")
        count = min(self.settings.calibration_samples, len(data))
        chosen = random.Random(self.args.seed).sample(range(len(data)), count)
        size = self.args.per_device_train_batch_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.args.seed)
            return [dict(collate([data[i] for i in chosen[start : start + size]])) for start in range(0, count, size)]

    def _to(self, batch: Any, device: torch.device) -> Any:
        if isinstance(batch, dict):
            return {name: self._to(value, device) for name, value in batch.items()}
        return batch.to(device) if isinstance(batch, Tensor) else batch

    # -- training ------------------------------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """One step, in which padding does not count for the ranges."""
        with counting(_counted(self.model, inputs)):
            return super().training_step(model, inputs, *args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The model's loss; in training, mixed with the distance to the teacher's logits where `settings` ask for it."""
        weight = self.settings.distillation_weight
        if not weight or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs.get("labels")
        given = dict(inputs)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        distance = distillation_loss(outputs, self._teach(given), self.settings.temperature, labels)
        counted = self.model_accepts_loss_kwargs and num_items_in_batch is not None
        if counted or self.compute_loss_func is not None:
            distance = distance / self.current_gradient_accumulation_steps  # as `loss` is already
        loss = (1.0 - weight) * loss + weight * distance
        return (loss, outputs) if return_outputs else loss

    def _teach(self, inputs: dict[str, Any]) -> Any:
        assert self.teacher is not None
        with torch.no_grad(), self.accelerator.autocast():
            return self.teacher(**{name: value for name, value in inputs.items() if name != "labels"})

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The usual optimizer, with learnable ranges in a group of their own: another learning rate, no weight decay."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        gains = {id(p): p for part in fake_quantizers(self.model) if (p := part.log_gain) is not None}
        if not fresh or not gains:
            return optimizer
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in gains]
        settings = {"lr": self.settings.range_learning_rate, "weight_decay": 0.0}
        optimizer.add_param_group({"params": list(gains.values()), **settings})
        return optimizer

    # -- what is written -----------------------------------------------------------------------------------------------------

    def convert(self) -> nn.Module:
        """The INT8 model of the present weights and ranges, on the CPU; the training model stays as it is."""
        return convert_qat(self.model)

    def save_int8(self, save_directory: str | Path) -> None:
        """Save the INT8 model with its tokenizer or processor. Only the main process writes.

        Raises:
            CheckpointError: the folder cannot be written.
            QuantizationError: weights that are not finite: the training diverged.
        """
        if self.args.should_save:
            save_pretrained(self.convert(), save_directory, tokenizer=self.processing_class)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the INT8 model; the trainer's own calls save what a training resumes from."""
        if _internal_call:
            return super().save_model(output_dir, _internal_call)
        self.save_int8(output_dir or self.args.output_dir)
        if self.args.push_to_hub:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)
        return None

    def push_to_hub(
        self,
        commit_message: str | None = None,
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **options: Any,
    ) -> Pushed | None:
        """Publish the INT8 model with a card, as `hub.push_to_hub` does; the training's own files are never sent.

        Args:
            blocking: True; publishing is one commit and is waited for.
            options: `report`, `card_info`, `create_pr`.
        """
        if not self.is_world_process_zero():
            return None
        return push_to_hub(
            self.convert(),
            self.args.hub_model_id or self.hub_model_id or Path(self.args.output_dir).absolute().name,
            tokenizer=self.processing_class,
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision,
            private=self.args.hub_private_repo if private is None else private,
            commit_message=commit_message,
            **options,
        )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        with without_tokens(self.args):  # `training_args.bin` is a pickle of them
            super()._save(output_dir, state_dict)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Checkpoints of the training stay here: they hold float weights and a pickle."""


def _counted(model: nn.Module, inputs: dict[str, Any]) -> list[Tensor]:
    """The token masks of a batch. Two of one shape cannot be distinguished: a token that either counts, counts."""
    masks, _ = token_masks(model, inputs)
    if len(masks) == 2 and masks[0].shape == masks[1].shape:
        return [masks[0] | masks[1]]
    return masks
