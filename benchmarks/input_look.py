"""How a run's data look to its network: for showing it other pictures."""

from __future__ import annotations

from metric_zoo.benchmarks.data.splits import TensorImages
from metric_zoo.benchmarks.record import Record
from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.benchmarks.weights import run_of
from metric_zoo.errors import RecordError
from metric_zoo.explain.prepare import Look


def look_of(record: Record) -> Look:
    """Size and channels from the record; the statistics of data that are normalised by their own, from them.

    Raises:
        RecordError: for a record without data; DataError if the data are missing.
    """
    if record.dataset is None:
        raise RecordError(f"record {record.id} is of a run that failed: it says nothing of its data")
    channels, _, size = record.dataset.image_shape
    run = run_of(record)
    if run.task != "classification":
        return Look(size, channels, (0.0,) * channels, (1.0,) * channels)
    if run.data.name in ("folder", "huggingface"):
        return Look(size, channels, (0.5,) * channels, (0.5,) * channels)
    images = get_task(run.task).load(run).test
    assert isinstance(images, TensorImages)
    return Look(size, channels, tuple(images.mean.flatten().tolist()), tuple(images.std.flatten().tolist()))
