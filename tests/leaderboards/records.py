"""Records made up for tests of tables; none is a measurement."""

from __future__ import annotations

from metric_zoo.benchmarks.record import Record, config_id


def make_record(
    kind: str = "metric", seed: int = 0, test: float = 0.9, train: float = 0.95, model: str = "resnet18", **changes
) -> Record:
    config = {"model": {"name": model}, "kind": {"kind": kind}, "seed": seed, "train": {"epochs": 3, "precision": "no"}}
    rate = {"lower_quartile": 90.0, "upper_quartile": 110.0, "repeats": 20, "batch_size": 64, "dtype": "float32"}
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
        "inference": {"median": 100.0 + seed, **rate},
        "training": {"median": 50.0, **rate},
        "latency_ms": {"p50": 3.0, "p90": 4.0},
        "wall_seconds": 1.0,
        "provenance": {
            "versions": {}, "git_sha": None, "git_dirty": None, "hardware": {"cpu": "test", "gpus": []},
            "driver": None, "command": "test", "started": "2026-01-01T00:00:00+00:00",
            "finished": "2026-01-01T00:00:01+00:00",
        },
    }  # fmt: skip
    return Record.model_validate({**data, **changes})
