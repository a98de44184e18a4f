"""Which runs belong together: repetitions in a cell, comparable cells in a group."""

from __future__ import annotations

import json
from dataclasses import dataclass

from metric_zoo.benchmarks.recipe_sections import DTYPES, DataConfig, TrainConfig
from metric_zoo.benchmarks.record import Record, config_id


@dataclass(frozen=True)
class Cell:
    """Runs that differ in their seed alone, and everything that tells them from others.

    Attributes:
        id: equal for the same configuration, data (by fingerprint) and hardware.
        group: equal where accuracy and speed may be compared: data, protocol, hardware, precision.
        baseline: equal for cells that differ in the kind of convolution alone.
        setting: hardware, precision and batch of throughput and latency, and torch's version.
        version: beginning of the data's fingerprint.
    """

    id: str
    group: str
    baseline: str
    task: str
    dataset: str
    version: str
    model: str
    architecture: str
    weights: str
    kind: str
    options: str
    hardware: str
    precision: str
    setting: str
    protocol: str


def cell_of(record: Record) -> Cell:
    """The cell of a successful run."""
    # How often it was measured, and what the recipe or the data are called, change no figure.
    config = {key: value for key, value in record.config.items() if key not in ("seed", "recipe", "measure")}
    config["data"] = {key: value for key, value in record.section("data").items() if key != "label"}
    dataset = record.dataset
    assert dataset is not None, "the run went well"
    data = {"task": record.task, "dataset": dataset.name, "fingerprint": dataset.fingerprint}
    hardware, precision, protocol = _hardware(record), _precision(record), _protocol(record)
    setting = ", ".join([hardware, precision, *_batch(record), *_torch(record)])
    whole = {**config, **data, "setting": setting}
    identities = {
        "id": config_id(whole),
        "group": config_id({**data, "data": config["data"], "train": config.get("train"), "setting": setting}),
        "baseline": config_id({key: value for key, value in whole.items() if key != "kind"}),
    }
    words = {
        "task": record.task,
        "dataset": _dataset(record, dataset.name),
        "version": dataset.fingerprint[:8],
        "model": record.model,
        "architecture": _architecture(record),
        "weights": record.weights or "from scratch",
        "kind": record.kind,
        "options": _options(record),
        "hardware": hardware,
        "precision": precision,
        "setting": setting,
        "protocol": protocol,
    }
    return Cell(**identities, **{name: printable(text) for name, text in words.items()})


def printable(text: str, most: int = 400) -> str:
    """A record's text on one line, without characters that cannot be seen or that turn the reading direction."""
    line = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    return line if len(line) <= most else line[: most - 1] + "…"


def printable_lines(text: str, most: int = 6000) -> str:
    """A record's text of several lines, without characters that cannot be seen."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text[:most])


def _dataset(record: Record, name: str) -> str:
    """With the picture and the noise, where a recipe names them."""
    data = record.section("data")
    parts = [str(data["image"])] if data.get("image") else []
    parts += [f"noise {data['noise']:g}"] if isinstance(data.get("noise"), (int, float)) else []
    return ", ".join([name, *parts])


def _pairs(values: dict) -> str:
    return ", ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in sorted(values.items())
    )


def _architecture(record: Record) -> str:
    """What the model's name does not tell: its registry, if not timm, and its constructor's options."""
    model = record.section("model")
    options = model.get("options")
    parts = [record.source] if record.source != "timm" else []
    parts += ["small stem"] if model.get("small_image_stem") else []
    parts += [_pairs(options)] if isinstance(options, dict) and options else []
    return ", ".join(parts)


def _hardware(record: Record) -> str:
    device = record.device
    if device == "cpu":
        measured = record.timing or record.provenance
        device = str(measured.hardware.get("cpu", "CPU"))[:100]
        threads = record.inference.threads if record.inference else 0
        device += f", {threads} thread{'s' if threads > 1 else ''}" if threads else ""
    return f"{record.world_size} x {device}"


def _precision(record: Record) -> str:
    train = record.section("train")
    dtype = DTYPES.get(train.get("precision", "no"), "float32")
    layout = [] if train.get("layout", "contiguous") == "contiguous" else [str(train["layout"])]
    return ", ".join([dtype, *layout, *(["compiled"] if train.get("compile") else [])])


def _batch(record: Record) -> list[str]:
    return [] if record.inference is None else [f"batches of {record.inference.batch_size}"]


def _torch(record: Record) -> list[str]:
    """Speed belongs to a version of the framework."""
    version = (record.timing or record.provenance).versions.get("torch", "").split(".")
    return [f"torch {'.'.join(version[:2])}"] if len(version) > 1 else []


def _options(record: Record) -> str:
    """The kind's options and placement, as a reader would write them; a peer's settings."""
    kind = record.section("kind")
    placement = {"where": kind.get("where")} if kind.get("where") is not None else {}
    start = {"init": kind["init"]} if kind.get("init", "pretrained") != "pretrained" else {}
    flags = {name: True for name in ("freeze_kernels", "batch_mixed", "per_pixel") if kind.get(name)}
    return _pairs({**record.learner.unsaid(record.model), **record.options, **placement, **start, **flags})


_ALWAYS = ("epochs", "batch_size", "optimizer", "lr", "schedule")
_USUAL = {**TrainConfig().model_dump(), **DataConfig().model_dump()}


def _protocol(record: Record) -> str:
    """How it trains: what everybody asks first, and everything that is not as usual."""
    told = {**record.section("data"), **record.section("train")}
    for name in ("name", "root", "label", "image", "noise"):  # of the data: said elsewhere
        told.pop(name, None)
    if told.get("search"):
        told.pop("lr", None)
    return _pairs({key: value for key, value in told.items() if key in _ALWAYS or value != _USUAL.get(key)})
