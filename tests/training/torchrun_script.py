"""What tests/training/test_distributed.py runs in two processes: train, convert, save, and say what each process ended with."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import torch
from transformers import TrainingArguments

from optimum_int8.training import Int8Trainer, QatSettings
from tests.quantizers.tiny import make_dataset, make_model, make_tokenizer


def main(folder: Path, ranges: str) -> None:
    torch.set_num_threads(1)
    tokenizer, dataset = make_tokenizer(), make_dataset(make_model(), 32)
    pairs = zip(dataset["sentence"], dataset["label"], strict=True)
    rows = [{**tokenizer(sentence), "labels": label} for sentence, label in pairs]
    arguments = TrainingArguments(
        str(folder / "run"), per_device_train_batch_size=4, num_train_epochs=2, learning_rate=1e-3, save_strategy="epoch",
        report_to="none", disable_tqdm=True, use_cpu=True, ddp_backend="gloo", dataloader_pin_memory=False,
    )  # fmt: skip
    settings = QatSettings(ranges=ranges, calibration_samples=16, averaging_constant=0.2)
    trainer = Int8Trainer(make_model(), arguments, train_dataset=rows, processing_class=tokenizer, settings=settings)
    trainer.train()
    trainer.save_model(str(folder / "int8"))
    state = trainer.convert().state_dict()
    digest = hashlib.sha256(b"".join(state[name].contiguous().numpy().tobytes() for name in sorted(state))).hexdigest()
    (folder / f"digest-{os.environ['RANK']}").write_text(f"{os.environ['WORLD_SIZE']} {digest}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
