"""Records made up for tests of tables; none is a measurement."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from metric_zoo.benchmarks.hits import pack_hits
from metric_zoo.benchmarks.record import Record, config_id
from metric_zoo.benchmarks.record_files import write_record


def make_config(kind: str = "metric", seed: int = 0, model: str = "resnet18", **changes) -> dict:
    return {
        "recipe": "tiny",
        "task": "classification",
        "data": {"name": "digits"},
        "model": {"name": model, "source": "timm", "pretrained": False},
        "kind": {"kind": kind, "options": {}},
        "seed": seed,
        "train": {"epochs": 3, "precision": "no"},
        "processes": 1,
        "device": "cpu",
        **changes,
    }


def make_record(
    kind: str = "metric", seed: int = 0, test: float = 0.9, train: float = 0.95, model: str = "resnet18", **changes
) -> Record:
    config = changes.pop("config", None) or make_config(kind, seed, model)
    rate = {"lower_quartile": 40.0, "upper_quartile": 110.0 + seed, "repeats": 20, "batch_size": 64, "dtype": "float32"}
    rate |= {"layout": "contiguous", "compiled": False, "threads": 2}
    data = {
        "id": config_id(config),
        "status": "ok",
        "recipe": "tiny",
        "task": "classification",
        "model": model,
        "source": "timm",
        "kind": kind,
        "options": {},
        "seed": seed,
        "world_size": 1,
        "device": "cpu",
        "config": config,
        "dataset": {
            "name": "digits", "train_size": 100, "test_size": 50, "classes": 10, "image_shape": [1, 8, 8],
            "fingerprint": "f",
        },
        "parameters": {"total": 1000, "heads": 100, "trainable": 1000},
        "gflops": 0.5,
        "train": {"top1": train, "top5": 1.0, "loss": 0.1, "images": 100},
        "test": {"top1": test, "top5": 1.0, "loss": 0.2, "images": 50},
        "generalization_gap": train - test,
        "epochs": [
            {"epoch": e, "lr": 0.1, "train_loss": 1 / e, "train_top1": 0.5, "test_top1": test * e / 3, "seconds": 1.0}
            for e in (1, 2, 3)
        ],
        "inference": {"median": 100.0 + seed, **rate},
        "training": {"median": 50.0, **rate},
        "latency_ms": {"p50": 3.0, "p90": 4.0},
        "wall_seconds": 1.0,
        "provenance": {
            "versions": {}, "git_sha": "c0ffee" + "0" * 34, "git_dirty": False, "hardware": {"cpu": "test", "gpus": []},
            "driver": None, "command": "test", "started": "2026-01-01T00:00:00+00:00",
            "finished": "2026-01-01T00:00:01+00:00",
        },
    }  # fmt: skip
    if changes.get("status") == "failed":
        data |= {"train": None, "test": None, "generalization_gap": None, "epochs": []}
    return Record.model_validate({**data, **changes})


def with_hits(record: Record, hits: np.ndarray) -> Record:
    """A record whose test images were right or not, as told."""
    test = record.test.model_copy(update={"top1": float(hits.mean()), "images": len(hits)})
    dataset = record.dataset.model_copy(update={"test_size": len(hits)})
    gap = record.train.top1 - test.top1
    changes = {"test": test, "dataset": dataset, "test_hits": pack_hits(hits), "generalization_gap": gap}
    return record.model_copy(update=changes)


def write(folder: Path, *records: Record) -> Path:
    for index, record in enumerate(records):
        write_record(folder / f"{index}.json", record)
    return folder


def make_denoising(
    kind: str = "metric", seed: int = 0, mse: float = 0.004, train: float = 0.002, size: int = 5, **changes
) -> Record:
    """Of single images: the gap is (test - train) / train."""
    model = {"name": "single-layer", "source": "metric-zoo", "options": {"kernel_size": size}, "pretrained": False}
    data = {"name": "scikit-image", "image": "camera", "noise": 0.3, "image_size": 64}
    own = {"task": "single-image-denoising", "model": model, "data": data}
    config = changes.pop("config", None) or {**make_config(kind, seed), **own}
    scores = [{"mse": v, "psnr": -10 * np.log10(v), "ssim": 0.5, "published_mse": v, "images": 1} for v in (train, mse)]
    fields = {
        "task": "single-image-denoising",
        "source": "metric-zoo",
        "dataset": {
            "name": "scikit-image", "train_size": 1, "test_size": 1, "classes": 0, "image_shape": [1, 64, 64],
            "fingerprint": "c",
        },
        "train": scores[0],
        "test": scores[1],
        "generalization_gap": (mse - train) / train,
        "searched": {"1": 0.5, "10": None},
        "lr": 1.0,
        "epochs": [
            {"epoch": e, "lr": 1.0, "train_loss": train, "test_mse": mse, "seconds": 1.0} for e in (1, 2, 3)
        ],
    }  # fmt: skip
    base = make_record(kind, seed, model="single-layer", config=config).model_dump()
    return Record.model_validate({**base, **fields, **changes})
