"""What training is made of: batches, learning rates, randomness; and that the number of processes changes nothing."""

from __future__ import annotations

import math

import pytest
import torch
from accelerate import Accelerator

from metric_zoo.benchmarks import measure, memory_fit, train
from metric_zoo.benchmarks.data import Augmented, load_data
from metric_zoo.benchmarks.data.batches import TrainingBatches
from metric_zoo.benchmarks.launch import Processes, run_recipe
from metric_zoo.benchmarks.log import RunLog
from metric_zoo.benchmarks.optimization import rate
from metric_zoo.benchmarks.plan import plan_recipe
from metric_zoo.benchmarks.recipe import load_recipe
from metric_zoo.benchmarks.recipe_sections import TrainConfig
from metric_zoo.benchmarks.record_files import read_record
from metric_zoo.benchmarks.runs import expand
from metric_zoo.benchmarks.train import Trainer
from metric_zoo.errors import MetricZooError


def batches(epoch: int = 0, first_step: int = 0, **changes) -> list[list[int]]:
    options = {"size": 50, "batch_size": 12, "seed": 3, "process": 0, "processes": 1, "accumulate": 1, **changes}
    sampler = TrainingBatches(**options)
    sampler.set_position(epoch, first_step)
    found = list(sampler)
    assert len(found) == len(sampler)
    return found


def test_batches_are_whole_and_every_epoch_has_its_own_order():
    first, second = batches(), batches(epoch=1)
    assert len(first) == 4 and all(len(batch) == 12 for batch in first)
    assert len({i for batch in first for i in batch}) == 48
    assert first != second and first == batches() and first != batches(seed=4)


def test_a_step_has_the_same_images_however_it_is_shared_out():
    whole = batches()
    for processes, accumulate in ((2, 1), (1, 3), (2, 3), (3, 2)):
        parts = [batches(process=i, processes=processes, accumulate=accumulate) for i in range(processes)]
        for step, images in enumerate(whole):
            found = [i for part in parts for micro in part[step * accumulate : (step + 1) * accumulate] for i in micro]
            assert found == images
    assert batches(first_step=3) == whole[3:]


class Noise(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.rand(2) + index


def test_augmentation_depends_on_seed_epoch_and_image_alone():
    data = Augmented(Noise(), seed=5)
    torch.manual_seed(0)
    expected_next = torch.Generator().manual_seed(0)
    first = [data[i] for i in (0, 1, 2)]
    assert torch.equal(torch.rand(1), torch.rand(1, generator=expected_next)), "the network's random numbers were used"
    assert all(torch.equal(data[i], first[i]) for i in (2, 0, 1))
    assert not torch.equal(first[0], first[1] - 1)
    data.set_epoch(1)
    assert not torch.equal(data[0], first[0])
    assert not torch.equal(Augmented(Noise(), seed=6)[0], first[0])


def test_learning_rates_are_the_formulas():
    cosine = TrainConfig(epochs=4)
    assert [rate(cosine, step, 10) for step in (0, 20, 40)] == pytest.approx([1.0, 0.5, 0.0])
    assert rate(cosine, 10, 10) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    warm = TrainConfig(epochs=4, warmup_epochs=1)
    assert [rate(warm, step, 9) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    steps = TrainConfig(epochs=4, schedule="step", milestones=[1, 3], decay=0.5)
    assert [rate(steps, step, 10) for step in (0, 9, 10, 29, 30)] == [1, 1, 0.5, 0.5, 0.25]
    assert rate(TrainConfig(schedule="constant"), 7, 10) == 1


# Normalisation over groups: a network that does not look at its batch learns the same from any part of it.
INDEPENDENT = {
    "name": "resnet10t",
    "options": {"channels": [8, 8, 16, 16], "norm_layer": "groupnorm1"},
    "small_image_stem": True,
}


def trajectory(folder) -> tuple[list[float], float]:
    (path,) = folder.glob("*.json")
    record = read_record(path)
    return [epoch.train_loss for epoch in record.epochs], record.test.loss


def test_accumulation_leaves_the_trajectory(write_recipe, tmp_path):
    """The same recipe at once and in four parts: the same losses to rounding. (test_resume has two processes.)"""
    settings = {"epochs": 2, "batch_size": 96, "lr": 0.002, "clip_norm": 1.0}
    found = []
    for accumulate in (1, 4):
        train = {**settings, "accumulate": accumulate}
        recipe = write_recipe(models=[INDEPENDENT], kinds=["shifted"], train=train)
        assert run_recipe(recipe, tmp_path / str(accumulate), cpu=True)["ok"] == 1
        found.append(trajectory(tmp_path / str(accumulate)))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-3)
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-3)


@pytest.mark.parametrize(("room", "parts"), [(96, 1), (95, 2), (31, 4), (1, 96)])
def test_automatic_micro_batches_are_the_fewest_that_fit(write_recipe, tmp_path, monkeypatch, room, parts):
    """On a device that has memory for so many images."""

    def step_of(*_):
        def step(images) -> None:
            if len(images) > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        return step

    monkeypatch.setattr(memory_fit, "training_step", step_of)
    recipe = write_recipe(kinds=["standard"], train={"batch_size": 96, "accumulate": "auto"})
    (run,) = expand(load_recipe(recipe))
    assert memory_fit.micro_batches(run, Accelerator(cpu=True), load_data(run.data).info) == parts


def test_automatic_micro_batches_of_a_device_that_is_too_small(write_recipe, monkeypatch):
    monkeypatch.setattr(memory_fit, "fits", lambda attempt: False)
    (run,) = expand(load_recipe(write_recipe(kinds=["standard"], train={"batch_size": 4, "accumulate": "auto"})))
    with pytest.raises(MetricZooError, match="one image does not fit the memory of cpu"):
        memory_fit.micro_batches(run, Accelerator(cpu=True), load_data(run.data).info)


def test_a_run_goes_on_in_the_micro_batches_that_it_began_with(write_recipe, tmp_path, monkeypatch):
    """Batch normalisation sees them: another number would be another run. More memory changes nothing, less is said."""
    (run,) = expand(load_recipe(write_recipe(kinds=["standard"], train={"batch_size": 96, "accumulate": "auto"})))
    splits = load_data(run.data)

    def trainer(found: int) -> Trainer:
        monkeypatch.setattr(train, "micro_batches", lambda *_: found)
        return Trainer(run, Accelerator(cpu=True), splits, tmp_path / "checkpoints", RunLog(tmp_path / "log"))

    more_memory = trainer(1)
    more_memory._go_on_in(4)
    assert more_memory.micro_batches == 4 and len(next(iter(more_memory._loader))[1]) == 24
    with pytest.raises(MetricZooError, match="began with 2 micro-batches, the memory now asks for 4"):
        trainer(4)._go_on_in(2)


def test_a_plan_where_nothing_fits(write_recipe, tmp_path, monkeypatch):
    def step_of(*_):
        def step(images) -> None:
            if len(images) > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        return step

    monkeypatch.setattr(measure, "training_step", step_of)
    recipe = write_recipe(kinds=["standard"], train={"batch_size": 96, "accumulate": "auto"})
    room = 10
    assert "does not fit" not in plan_recipe(recipe, tmp_path, cpu=True)
    room = 0
    assert "does not fit" in plan_recipe(recipe, tmp_path, cpu=True)


def test_the_search_for_micro_batches_leaves_the_run_alone(write_recipe, tmp_path):
    """The same figures, and the record says what was found."""
    records = []
    for accumulate in (1, "auto"):
        recipe = write_recipe(kinds=["shifted"], train={"epochs": 1, "batch_size": 96, "accumulate": accumulate})
        assert run_recipe(recipe, tmp_path / str(accumulate), cpu=True)["ok"] == 1
        records.append(read_record(next((tmp_path / str(accumulate)).glob("*.json"))))
    assert records[0].micro_batches == records[1].micro_batches == 1
    assert records[0].test == records[1].test and records[0].epochs[0].train_loss == records[1].epochs[0].train_loss


@pytest.mark.parametrize(
    ("processes", "message"),
    [
        (Processes(0), "num-processes is 0"),
        (Processes(3, machines=2), "cannot be shared out over 2 machines"),
        (Processes(2, machines=2, rank=2), "machine-rank is 2, expected 0 to 1"),
    ],
)
def test_numbers_that_do_not_fit(processes, message):
    with pytest.raises(MetricZooError, match=message):
        processes.check()


@pytest.mark.parametrize(
    "train",
    [
        {"layout": "channels_last", "optimizer": "sgd"},
        pytest.param({"compile": True}, marks=pytest.mark.slow),
        {"precision": "bf16", "ema": 0.5},
    ],
)
def test_options_of_training_run(write_recipe, tmp_path, monkeypatch, train):
    compile_module = torch.nn.Module.compile  # without inductor, whose compiling would take most of the tests' time
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_module(self, backend="aot_eager"))
    data = {"name": "digits", "image_size": 8, "channels": 3}
    recipe = write_recipe(kinds=["metric"], data=data, train={"epochs": 1, "batch_size": 256, **train})
    assert run_recipe(recipe, tmp_path, cpu=True)["ok"] == 1
    (path,) = tmp_path.glob("*.json")
    record = read_record(path)
    assert record.inference.layout == train.get("layout", "contiguous")


def test_a_tracker_gets_every_epoch(write_recipe, tmp_path):
    """Read back by tensorboard itself."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = write_recipe(kinds=["standard"], train={"epochs": 2})
    assert run_recipe(recipe, tmp_path / "out", cpu=True, tracker="tensorboard")["ok"] == 1
    (path,) = (tmp_path / "out").glob("*.json")
    (events,) = (tmp_path / "out" / "logs").rglob("events*")
    assert path.stem in str(events)
    reader = EventAccumulator(str(events))
    reader.Reload()
    losses = [event.value for event in reader.Scalars("loss")]
    assert losses == pytest.approx([epoch.train_loss for epoch in read_record(path).epochs], rel=1e-6)


@pytest.mark.parametrize(("name", "message"), [("tensorbord", "did you mean 'tensorboard'"), ("aim", "not installed")])
def test_trackers_that_are_not_there(write_recipe, tmp_path, name, message):
    with pytest.raises(MetricZooError, match=message):
        run_recipe(write_recipe(), tmp_path / "out", cpu=True, tracker=name)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_overhead_is_measured_in_turns(write_recipe):
    from metric_zoo.benchmarks.overhead import measure_overhead

    lines = measure_overhead(write_recipe(), rounds=2, cpu=True).splitlines()
    assert lines[0] == "resnet10t standard seed 0, 22 steps of 64 images, cpu"
    assert lines[1].startswith("harness: ") and lines[2].startswith("plain loop: ")
    harness, plain, loading = (float(line.split(": ")[1].split(" s")[0]) for line in lines[1:4])
    assert float(lines[4].removeprefix("ratio: ")) == pytest.approx(harness / plain, rel=0.05)  # printed to 0.01 s
    rate = float(lines[5].removeprefix("loading: ").removesuffix(" images/s").replace(",", ""))
    assert rate == pytest.approx(22 * 64 / loading, rel=0.2)
    with pytest.raises(MetricZooError, match=r"train.clip_norm=1.0: the plain loop has none"):
        measure_overhead(write_recipe(train={"epochs": 1, "clip_norm": 1.0}), cpu=True)


@pytest.mark.slow
def test_jobs_share_the_runs_of_a_recipe(write_recipe, tmp_path):
    """On submitit's local executor."""
    from metric_zoo.benchmarks.submit import submit_recipe

    recipe = write_recipe(kinds=["standard", "shifted"], train={"epochs": 1})
    jobs = submit_recipe(recipe, tmp_path / "out", 2, "local", cpu=True, minutes=10)
    outcomes = [job.result() for job in jobs]
    assert not any(outcome.get("failed") for outcome in outcomes)
    assert sorted(read_record(path).kind for path in (tmp_path / "out").glob("*.json")) == ["shifted", "standard"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"executor": "pbs"}, "unknown executor 'pbs'"), ({"jobs": 0}, "jobs is 0"), ({"executor": "slurm"}, "slurm")],
)
def test_jobs_that_cannot_be(write_recipe, tmp_path, changes, message):
    from metric_zoo.benchmarks.submit import submit_recipe

    with pytest.raises(MetricZooError, match=message):
        submit_recipe(write_recipe(), tmp_path, **{"jobs": 1, "executor": "local", "cpu": True, **changes})
