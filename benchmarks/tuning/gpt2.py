"""A small GPT-2 trained on WikiText-2: the pre-norm model that the outlier measurements need. Minutes on two cores."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from tqdm.auto import tqdm
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

VOCABULARY = 4096
LENGTH = 128
WIDTH, LAYERS, HEADS = 192, 4, 6
END = "<|endoftext|>"


def read_text(file: Path) -> str:
    """The text of one split of WikiText-2."""
    return file.read_text(encoding="utf-8")


def find_split(folder: Path, split: str) -> Path:
    """The file of a split. Raises `FileNotFoundError` when the folder has none."""
    found = sorted(file for file in folder.rglob("*") if file.is_file() and split in file.name)
    if not found:
        raise FileNotFoundError(f"no file of the split {split!r} in {str(folder)!r}; expected WikiText-2")
    return found[0]


def make_tokenizer(text: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `VOCABULARY` tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, bos_token=END, pad_token=END, model_max_length=LENGTH
    )


def tokens_of(tokenizer: PreTrainedTokenizerFast, text: str) -> Tensor:
    """The text as rows of `LENGTH` tokens."""
    ids = tokenizer.backend_tokenizer.encode(text).ids
    return torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).view(-1, LENGTH)


def train(data: Path, output: Path, steps: int = 700, batch_size: int = 16, seed: int = 0) -> GPT2LMHeadModel:
    """Train and save; returns the model in evaluation mode."""
    text = read_text(find_split(data, "train"))
    tokenizer = make_tokenizer(text)
    rows = tokens_of(tokenizer, text)
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=LENGTH,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    bar = tqdm(range(steps), desc="training GPT-2", mininterval=10)
    for _ in bar:
        batch = rows[torch.randint(len(rows), (batch_size,))]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    model.eval().save_pretrained(output)
    tokenizer.save_pretrained(output)
    return model
