"""From runs to rows: mean and sample standard deviation over seeds."""

from __future__ import annotations

import json

import pandas as pd

from metric_zoo.benchmarks.record import Record, config_id

STATISTICS = ("test_top1", "generalization_gap")
"""Columns with a mean and a sample standard deviation; the others are means."""

_MEANS = ("train_top1", "inference", "training", "latency_ms", "peak_memory_mib", "parameters", "heads", "gflops")


def run_frame(records: list[Record]) -> pd.DataFrame:
    """One row per successful run, accuracies and gap in percent, throughput in images per second."""
    return pd.DataFrame([_run_row(record) for record in records if record.status == "ok"])


def leaderboard(records: list[Record]) -> pd.DataFrame:
    """One row per configuration and machine, best first within a data set and model.

    Runs count together when everything but the seed is equal: data (by fingerprint), model, kind, options, protocol,
    hardware and number of processes. Columns with ``_std`` are sample standard deviations, NaN for a single run.
    """
    runs = run_frame(records)
    if runs.empty:
        return runs
    groups = runs.groupby("cell", sort=False)
    text = ["task", "dataset", "model", "weights", "kind", "options", "architecture", "hardware", "protocol"]
    board = groups[text].first()
    board["runs"] = groups.size()
    for name in STATISTICS:
        board[name], board[f"{name}_std"] = groups[name].mean(), groups[name].std(ddof=1)
    for name in _MEANS:
        board[name] = groups[name].mean()
    order = ["task", "dataset", "model", "architecture", "test_top1", "kind"]
    return board.sort_values(order, ascending=[True, True, True, True, False, True]).reset_index(drop=True)


def _run_row(record: Record) -> dict:
    hardware = _hardware(record)
    protocol = {key: value for key, value in record.config.items() if key != "seed"}
    cell = config_id({**protocol, "data": record.dataset.fingerprint, "hardware": hardware})
    return {
        "cell": cell,
        "task": record.task,
        "dataset": record.dataset.name,
        "model": record.model,
        "architecture": _architecture(record),
        "weights": record.weights or "from scratch",
        "kind": record.kind,
        "options": _options(record),
        "hardware": hardware,
        "protocol": _protocol(record),
        "seed": record.seed,
        "test_top1": 100 * record.test.top1,
        "train_top1": 100 * record.train.top1,
        "generalization_gap": 100 * record.generalization_gap,
        "parameters": record.parameters.total,
        "heads": record.parameters.heads,
        "gflops": record.gflops,
        "inference": record.inference.median if record.inference else None,
        "training": record.training.median if record.training else None,
        "latency_ms": record.latency_ms.p50 if record.latency_ms else None,
        "peak_memory_mib": record.peak_memory_mib,
    }


def _section(record: Record, name: str) -> dict:
    """A part of the configuration; empty where a record's is of another form."""
    section = record.config.get(name)
    return section if isinstance(section, dict) else {}


def _pairs(values: dict) -> str:
    return ", ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in sorted(values.items())
    )


def _architecture(record: Record) -> str:
    """What the model's name does not tell: its registry, if not timm, and its constructor's options."""
    section = _section(record, "model")
    options = section.get("options")
    parts = [record.source] if record.source != "timm" else []
    parts += ["small stem"] if section.get("small_image_stem") else []
    parts += [_pairs(options)] if isinstance(options, dict) and options else []
    return ", ".join(parts)


def _hardware(record: Record) -> str:
    device = record.device
    if device == "cpu":
        device = str(record.provenance.hardware.get("cpu", "CPU"))
        threads = record.inference.threads if record.inference else 0
        device += f", {threads} thread{'s' if threads > 1 else ''}" if threads else ""
    return f"{record.world_size} x {device}"


def _options(record: Record) -> str:
    """The kind's options and placement, as a reader would write them."""
    kind = _section(record, "kind")
    placement = {"where": kind.get("where")} if kind.get("where") is not None else {}
    start = {"init": kind["init"]} if kind.get("init", "pretrained") != "pretrained" else {}
    frozen = {"freeze_kernels": True} if kind.get("freeze_kernels") else {}
    return _pairs({**record.options, **placement, **start, **frozen})


def _protocol(record: Record) -> str:
    """The recipe and how it trains, with every value that sets rows apart."""
    train, data = _section(record, "train"), _section(record, "data")
    size = {"image_size": data["image_size"]} if data.get("image_size") else {}
    augment = {"augment": data["augment"]} if data.get("augment", "none") != "none" else {}
    text = _pairs({key: value for key, value in {**train, **size, **augment}.items() if value != 0})
    return f"{record.recipe}: {text}" if text else record.recipe
