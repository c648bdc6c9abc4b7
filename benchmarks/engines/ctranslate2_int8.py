"""CTranslate2 with INT8 weights and dynamic activations; it has converters for some encoders (BERT, DistilBERT, ...)."""

from __future__ import annotations

import shutil

import numpy as np
import torch

from ..models import Call, Inputs, Job, Loaded

NAME = "ctranslate2_int8"
TITLE = "CTranslate2 INT8"
REQUIRES = ("ctranslate2",)
LIMIT = 0.15
FOLDER = "model_int8"


def prepare(job: Job) -> None:
    """Save a checkpoint with a made-up vocabulary, which the converter insists on, and convert it."""
    if (job.folder / FOLDER).exists():
        return
    from ctranslate2.converters import TransformersConverter
    from transformers import BertTokenizerFast

    model = job.fp32()
    model.config.position_embedding_type = "absolute"  # gone from Transformers 5; the converter reads it
    model.save_pretrained(job.folder / "checkpoint")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = special + [f"w{i}" for i in range(len(special), model.config.vocab_size)]
    BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}).save_pretrained(job.folder / "checkpoint")
    partial = job.folder / "partial"
    TransformersConverter(str(job.folder / "checkpoint")).convert(str(partial), quantization="int8", force=True)
    partial.rename(job.folder / FOLDER)
    shutil.rmtree(job.folder / "checkpoint")


def load(job: Job) -> Loaded:
    """Load the encoder."""
    import ctranslate2

    encoder = ctranslate2.Encoder(
        str(job.folder / FOLDER), inter_threads=1, intra_threads=job.threads, compute_type="int8"
    )

    def bind(inputs: Inputs) -> Call:
        ids = ctranslate2.StorageView.from_array(inputs["input_ids"].to(torch.int32).numpy())
        lengths = ctranslate2.StorageView.from_array(inputs["attention_mask"].sum(1).to(torch.int32).numpy())
        return lambda: encoder.forward_batch(ids, lengths)

    return Loaded(bind, lambda result: torch.as_tensor(np.array(result.last_hidden_state)))
