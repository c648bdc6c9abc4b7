"""Train the quickstart's embedded classifier from scratch and write it to `model/`: `python make_model.py [folder]`.

Same seed, same torch and same machine give the same file. One thread, a few minutes. The rows of `validation.csv` are read
by `measure` only, after training.
"""

from __future__ import annotations

import csv
import json
import platform
import sys
from pathlib import Path

import torch
import transformers
from grammar import generate
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedTokenizerFast

HERE = Path(__file__).parent
SEED = 2024
PLAIN_SENTENCES = 12_000
PLAIN_EPOCHS = 2
SENTENCES = 20_000
WRITTEN_REPEATS = 6
EPOCHS = 4
BATCH = 64
LEARNING_RATE = 1e-3
MAX_LENGTH = 64
UNKNOWN_SHARE = 0.1
VOCABULARY = 3000
Pairs = list[tuple[str, int]]
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def read_rows(split: str) -> Pairs:
    """The hand-written (text, label) rows of one file of `sentences`: `train` or `validation`."""
    with (HERE / "sentences" / f"{split}.csv").open(newline="", encoding="utf-8") as file:
        return [(row["text"], int(row["label"])) for row in csv.DictReader(file)]


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A lower-case WordPiece tokenizer over `texts`, at most `VOCABULARY` pieces."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL.values()), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
        **SPECIAL,
    )


def make_classifier(vocabulary: int) -> DistilBertForSequenceClassification:
    """An untrained four-layer classifier, 128 wide, heads of 32."""
    names = {0: "NEGATIVE", 1: "POSITIVE"}
    config = DistilBertConfig(
        vocab_size=vocabulary, max_position_embeddings=MAX_LENGTH, pad_token_id=0, tie_word_embeddings=False,
        dim=128, hidden_dim=512, n_layers=4, n_heads=4, initializer_range=0.05, seq_classif_dropout=0.2, dropout=0.15,
        id2label=names, label2id={name: number for number, name in names.items()},
    )  # fmt: skip
    return DistilBertForSequenceClassification(config)


def batches_by_length(pairs: Pairs) -> list[Pairs]:
    """One epoch of full batches in random order, each of sentences of about the same length: little padding to compute."""
    order = sorted(torch.randperm(len(pairs)).tolist(), key=lambda index: len(pairs[index][0]) // 8)
    starts = [int(index) * BATCH for index in torch.randperm(len(pairs) // BATCH)]
    return [[pairs[index] for index in order[start : start + BATCH]] for start in starts]


def train(model: DistilBertForSequenceClassification, tokenizer: PreTrainedTokenizerFast, lessons: list[Pairs]) -> None:
    """Train `model` in place, one epoch per lesson.

    Some words become [UNK] at random, so that the model learns to do without them. A second head on the mean of all
    tokens, dropped afterwards, teaches the embeddings sooner than the first token alone would.
    """
    steps = sum(len(pairs) // BATCH for pairs in lessons)
    mean_head = torch.nn.Linear(model.config.dim, 2)
    parameters = [*model.parameters(), *mean_head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    model.train()
    batches = (batch for pairs in lessons for batch in batches_by_length(pairs))
    for step, chosen in enumerate(batches):
        batch = tokenizer([text for text, _ in chosen], padding=True, truncation=True, return_tensors="pt")
        hidden = (torch.rand(batch["input_ids"].shape) < UNKNOWN_SHARE) & (batch["input_ids"] >= len(SPECIAL))
        batch["input_ids"][hidden] = tokenizer.unk_token_id
        labels = torch.tensor([label for _, label in chosen])
        outputs = model(**batch, output_hidden_states=True)
        weights = batch["attention_mask"].unsqueeze(-1).float()
        mean = (outputs.hidden_states[-1] * weights).sum(1) / weights.sum(1)
        loss, extra = (
            functional.cross_entropy(x, labels, label_smoothing=0.02) for x in (outputs.logits, mean_head(mean))
        )
        (loss + 0.5 * extra).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step:5d} of {steps}  loss {loss.item():.3f}", flush=True)


@torch.no_grad()
def predict(
    model: DistilBertForSequenceClassification, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> list[int]:
    """The label of each text."""
    model.eval()
    return [int(model(**tokenizer(text, truncation=True, return_tensors="pt")).logits.argmax()) for text in texts]


def accuracy(model: DistilBertForSequenceClassification, tokenizer: PreTrainedTokenizerFast, rows: Pairs) -> float:
    """Share of `rows` whose label the model finds."""
    found = predict(model, tokenizer, [text for text, _ in rows])
    return sum(label == guess for (_, label), guess in zip(rows, found, strict=True)) / len(rows)


def lessons() -> list[Pairs]:
    """What is learnt in each epoch: short clauses first, then whole sentences and the hand-written training rows."""
    plain = generate(PLAIN_SENTENCES, SEED + 1, plain=True)
    whole = generate(SENTENCES, SEED) + read_rows("train") * WRITTEN_REPEATS
    return [plain] * PLAIN_EPOCHS + [whole] * EPOCHS


def main(folder: Path) -> None:
    """Train, save to `folder`, measure what was saved."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    plan = lessons()
    tokenizer = train_tokenizer([text for text, _ in plan[-1]])
    model = make_classifier(len(tokenizer))
    train(model, tokenizer, plan)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # FP16 is only how the file is stored: with dtype float32 in config.json, Transformers loads FP32 weights.
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(
        json.dumps(config | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    (folder / "result.json").write_text(json.dumps(measure(folder), indent=2) + "\n", encoding="utf-8")
    print((folder / "result.json").read_text(encoding="utf-8"))


def measure(folder: Path) -> dict[str, object]:
    """What README and test quote: the saved model, loaded as FP32, on the validation rows."""
    model = DistilBertForSequenceClassification.from_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    rows = read_rows("validation")
    return {
        "metric": "accuracy",
        "value": round(accuracy(model, tokenizer, rows), 6),
        "dtype": str(model.dtype).removeprefix("torch."),
        "validation_rows": len(rows),
        "written_training_rows": len(read_rows("train")),
        "generated_training_sentences": PLAIN_SENTENCES + SENTENCES,
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
        "file_mb": round((folder / "model.safetensors").stat().st_size / 1e6, 3),
        "seed": SEED,
        "machine": {
            "architecture": platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "model")
