"""How a run's data look to its network: for showing it other pictures."""

from __future__ import annotations

from metric_zoo.benchmarks.record import Record
from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.benchmarks.weights import run_of
from metric_zoo.errors import RecordError
from metric_zoo.explain.prepare import Look


def look_of(record: Record) -> Look:
    """Size and channels from the record; what the task does with pixels, from it.

    Raises:
        RecordError: for a record without data; DataError if the data are missing.
    """
    if record.dataset is None:
        raise RecordError(f"record {record.id} is of a run that failed: it says nothing of its data")
    channels, _, size = record.dataset.image_shape
    return get_task(record.task).training().look(run_of(record), size, channels)
