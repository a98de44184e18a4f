"""The trained networks of runs, beside their records."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from metric_zoo.benchmarks.model import build_model
from metric_zoo.benchmarks.record import Record
from metric_zoo.benchmarks.record_files import read_record
from metric_zoo.benchmarks.runs import Run
from metric_zoo.benchmarks.schema import first_problem
from metric_zoo.errors import RecordError
from metric_zoo.files import replacing
from metric_zoo.text import told

WEIGHTS = "weights"
"""Folder beside the records."""


def weights_path(record: Path) -> Path:
    """Where the weights belong of the run with this record: ``weights/<its name>.safetensors``."""
    return record.parent / WEIGHTS / f"{record.stem}.safetensors"


def keep_weights(record: Path, model: nn.Module) -> None:
    """Write a network's parameters and buffers to where those of a run belong: the whole file or none."""
    path = weights_path(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_model(model, str(temporary))


def run_of(record: Record) -> Run:
    """The run that a record is of.

    Raises:
        RecordError: if its configuration is of none.
    """
    try:
        return Run.model_validate(record.config)
    except ValidationError as error:
        raise RecordError(f"record {record.id} has no configuration of a run: {first_problem(error)}") from None


def network_of(record: Record) -> nn.Module:
    """The network of a run that went well as it was built, with random weights, on the CPU.

    Raises:
        RecordError: if the record's configuration is of no run.
    """
    run = run_of(record)
    run = run.model_copy(update={"model": run.model.model_copy(update={"pretrained": False})})
    assert record.dataset is not None, "the run went well"
    return build_model(run, record.dataset)


def trained_model(record: Path) -> nn.Module:
    """The network of a run with the weights that were evaluated, in evaluation mode and float32, on the CPU.

    Args:
        record: its file; the weights lie beside it if the run was launched with ``--keep-weights``.

    Raises:
        RecordError: if the record is none, has failed, or its weights are missing or of another network.
    """
    found, path = read_record(record), weights_path(record)
    if found.status != "ok":
        raise RecordError(f"{record} is of a run that failed: there is no trained network")
    if not path.exists():
        raise RecordError(f"{path} does not exist: launch the run with --keep-weights")
    model = network_of(found)
    try:
        load_model(model, path)
    except (RuntimeError, SafetensorError) as error:
        raise RecordError(f"{path} does not hold the weights of {record}: {told(error)}") from None
    return model.eval()
