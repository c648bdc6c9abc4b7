"""The model card of an INT8 checkpoint, rendered from its `config.json` and the JSON of its evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..errors import ConfigError
from ..sites import KINDS

LIBRARY = "optimum_int8"

VERSIONS = ("torch", "transformers", "optimum_int8")
"""Packages whose versions a card names next to the machine that the numbers were measured on."""

PIPELINE_TAGS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "MTModel": "translation",
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "Model": "feature-extraction",
}
"""End of a class name to the Hub's task; the first that fits."""


PIPELINES = (
    *("text-classification", "token-classification", "fill-mask", "text-generation", "feature-extraction"),
    *("image-classification", "object-detection"),
)
"""Tasks of ours for which Transformers 5 has a pipeline."""


@dataclass(frozen=True)
class CardInfo:
    """What a card says that neither `config.json` nor the evaluation knows; everything may be left out.

    Args:
        base_model: repository of the FP32 model.
        license: identifier of the base model's licence, such as `"apache-2.0"`.
        license_name, license_link: what the Hub wants besides when that is `"other"`.
        language: code of the language, such as `"en"`.
        dataset: repository or name of the evaluation data.
        dataset_config, dataset_split: which part of it.
        calibration_dataset: what static ranges were measured on.
        calibration_samples: how many examples of it.
        pipeline_tag: the Hub's task, if the class of the model does not tell.
        sensitivity: file name of a sensitivity report next to the card, to link.
    """

    base_model: str | None = None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    language: str | None = None
    dataset: str | None = None
    dataset_config: str | None = None
    dataset_split: str | None = None
    calibration_dataset: str | None = None
    calibration_samples: int | None = None
    pipeline_tag: str | None = None
    sensitivity: str | None = None


def render_card(
    repo_id: str, config: Mapping[str, Any], report: Mapping[str, Any] | None = None, info: CardInfo | None = None
) -> str:
    """The text of `README.md`.

    Args:
        repo_id: the repository the card is for.
        config: `config.json` of the checkpoint, with its `quantization_config`.
        report: `EvaluationReport.to_dict()`; without it the card makes no claim about accuracy or speed.
        info: what else is known.

    Raises:
        ConfigError: the report lacks one of its keys.
    """
    info = info or CardInfo()
    quantization = config["quantization_config"]
    tag = info.pipeline_tag or pipeline_tag(config)
    try:
        sections = [
            _introduction(repo_id, quantization, info),
            _evaluation(report, info) if report else "",
            _usage(repo_id, config, tag),
            _details(quantization, info),
            _tuning(quantization.get("tuning"), info),
        ]
        data = _metadata(repo_id, quantization, report, info, tag)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"not an evaluation report: {error!r}; expected EvaluationReport.to_dict()") from error
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(section for section in sections if section) + "\n"


def pipeline_tag(config: Mapping[str, Any]) -> str | None:
    """The Hub's task for the class that `config.json` names."""
    name = (config.get("architectures") or [""])[0]
    return next((tag for ending, tag in PIPELINE_TAGS.items() if name.endswith(ending)), None)


def _metadata(
    repo_id: str, quantization: Mapping[str, Any], report: Mapping[str, Any] | None, info: CardInfo, tag: str | None
) -> ModelCardData:
    results = []
    for side in ("INT8", "FP32") if report else ():
        assert report is not None
        results.append(
            EvalResult(
                task_type=tag or "other",
                dataset_type=info.dataset or "unknown",
                dataset_name=info.dataset or "unknown",
                dataset_config=info.dataset_config,
                dataset_split=info.dataset_split,
                metric_type=report["metric"],
                metric_name=f"{report['metric']} ({side})",
                metric_value=report[side.lower()]["value"],
            )
        )
    relation = {"base_model": info.base_model, "base_model_relation": "quantized"} if info.base_model else {}
    return ModelCardData(
        library_name=LIBRARY,
        license=info.license,
        license_name=info.license_name,
        license_link=info.license_link,
        language=info.language,
        pipeline_tag=tag,
        tags=["int8", "quantized", "x86", "cpu", quantization["config"]["approach"]],
        datasets=[info.dataset] if info.dataset else None,
        metrics=[report["metric"]] if report else None,
        model_name=repo_id.split("/")[-1] if results else None,
        eval_results=results or None,
        **relation,
    )


def _introduction(repo_id: str, quantization: Mapping[str, Any], info: CardInfo) -> str:
    source = f"[{info.base_model}](https://huggingface.co/{info.base_model})" if info.base_model else "an FP32 model"
    return (
        f"# {repo_id.split('/')[-1]}\n\n"
        f"INT8 version of {source} for x86 CPUs, made with `{LIBRARY}` ({quantization['config']['approach']} quantization). "
        "It is a plain Transformers model in PyTorch."
    )


def _evaluation(report: Mapping[str, Any], info: CardInfo) -> str:
    fp32 = report["fp32"]
    int8 = report["int8"]
    machine = report["machine"]
    loss = report["relative_loss"]
    change = (
        "undefined" if loss is None else f"{abs(loss):.2%} {'worse' if loss > 0 else 'better'}" if loss else "equal"
    )
    on = " ".join(part for part in (info.dataset, info.dataset_config, info.dataset_split) if part)
    rows = [
        "| | INT8 | FP32 | INT8 is |",
        "|---|---:|---:|---|",
        f"| {report['metric']} | {int8['value']:.4f} | {fp32['value']:.4f} | {change} |",
        f"| size | {int8['size_mb']:.1f} MB | {fp32['size_mb']:.1f} MB | {report['compression_ratio']:.2f}x smaller |",
        f"| latency | {int8['latency_ms']:.2f} ms | {fp32['latency_ms']:.2f} ms | {_faster(report)} |",
    ]
    spread = report.get("spread")
    if spread:
        ends = ["{:.2f} to {:.2f}".format(*spread[key]) for key in ("int8_ms", "fp32_ms", "speedup")]
        rows.append(f"| quartiles | {ends[0]} ms | {ends[1]} ms | {ends[2]} |")
    versions = [f"{name} {machine[name]}" for name in VERSIONS if name in machine]
    if machine.get("commit"):
        versions.append(f"commit {machine['commit']}")
    notes = (
        f"Measured in one run on {machine['cpu']} (instruction set {machine['isa_used']}, {machine['threads']} threads), "
        f"with {', '.join(versions)}. Latency is the median for single examples{_load(report)}; on another machine the ratio differs."
    )
    return f"## INT8 next to FP32{' on ' + on if on else ''}\n\n" + "\n".join(rows) + f"\n\n{notes}"


def _faster(report: Mapping[str, Any]) -> str:
    """The last cell of the row of latencies."""
    speedup = report["speedup"]
    if speedup is None:
        return "not measurable: the machine was busy"
    return f"{speedup:.2f}x faster" if speedup >= 1 else f"{1 / speedup:.2f}x slower"


def _load(report: Mapping[str, Any]) -> str:
    load = (report.get("spread") or {}).get("load")
    return "" if load is None else f", called in turns at a load average of {load:.1f}"


def _usage(repo_id: str, config: Mapping[str, Any], tag: str | None) -> str:
    lines = [
        "## How to load it",
        "",
        f"With the package `{LIBRARY}`; the model is a `{(config.get('architectures') or ['PreTrainedModel'])[0]}`:",
        "",
        "```python",
        f"from {LIBRARY} import OptimizedModel",
        "",
        f'model = OptimizedModel.from_pretrained("{repo_id}")',
        "```",
        "",
        f"After `import {LIBRARY}`, Transformers' own `from_pretrained` and `pipeline` load it too; without that import they "
        "refuse:",
        "",
        "```python",
        f"import {LIBRARY}",
        "from transformers import pipeline",
        "",
        f'pipe = pipeline("{tag}", "{repo_id}")',
        "```",
    ]
    return "\n".join(lines if tag in PIPELINES else lines[:11])


def _details(quantization: Mapping[str, Any], info: CardInfo) -> str:
    settings = quantization["config"]
    modules = quantization["modules"]
    fp32 = quantization["fp32"]
    found = [kind for kind in modules.values() if KINDS[kind].is_int8]
    kinds = [f"{found.count(kind)} {kind}" for kind in sorted(set(found))]
    lines = ["## How it was quantized", "", f"- INT8 modules: {', '.join(kinds)}"]
    lines += [f"- {key.replace('_', ' ')}: {settings[key]}" for key in ("approach", "weight_granularity", "attention")]
    if settings["approach"] != "dynamic":
        count = f"{info.calibration_samples} examples of " if info.calibration_samples else ""
        lines.append(
            f"- calibration: {count}{info.calibration_dataset or 'data not recorded'}, observer {settings['observer']}"
        )
        if quantization.get("per_token"):
            lines.append(
                f"- {len(quantization['per_token'])} linears, whose inputs have outlier tokens, measure a range per token"
            )
    else:
        lines.append("- calibration: none; each token's range is measured at run time")
    lines += ["", "What stayed FP32:" if fp32 else "Nothing that can be INT8 stayed FP32.", *([""] if fp32 else [])]
    lines += [f"- `{name}`: {reason}" for name, reason in fp32.items()]
    return "\n".join(lines)


def _fallbacks(what: str, sites: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of sites that the budget took out of INT8."""
    if not sites:
        return []
    return [
        "",
        f"| {what} | error alone in INT8 | multiply-adds | size | time per call |",
        "|---|---|---|---|---|",
        *(
            f"| `{site['name']}` ({site['kind']}) | {site['error']:.2%} | {site['macs']:.2%} | {site['size_mb']:+.2f} MB "
            f"| {site['milliseconds']:+.3f} ms |"
            for site in sites
        ),
    ]


def _tuning(tuning: Mapping[str, Any] | None, info: CardInfo) -> str:
    """What the accuracy budget left in FP32, and the link to the sensitivity report."""
    lines = []
    if tuning:
        loss = "undefined" if tuning["loss"] is None else f"{tuning['loss']:+.2%}"
        kept = "is kept" if tuning["met"] else f"is **not** kept ({tuning['stopped']})"
        lines.append(
            f"The budget of {tuning['budget']:.2%} relative loss {kept}: {loss} after {len(tuning['steps'])} trials. "
            f"It left {tuning['fp32_macs']:.1%} of the multiply-adds in FP32."
        )
    for key, what in (("fp32", "left in FP32"), ("bfloat16", "attention in bfloat16")):
        lines += _fallbacks(what, (tuning or {}).get(key, ()))
    if info.sensitivity:
        lines += ["", f"[What INT8 costs each part of the model]({info.sensitivity})"]
    return "\n".join(["## Accuracy", "", *lines]).replace("\n\n\n", "\n\n") if lines else ""
