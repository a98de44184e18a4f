"""Make every picture of the gallery, and its page, from real images: ``make gallery``.

Networks are trained here, in minutes, on pictures that packages carry; nothing is fetched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

import metric_zoo as mz
from metric_zoo.benchmarks.data import load_data
from metric_zoo.benchmarks.data.noisy import embedded
from metric_zoo.benchmarks.kernels.quality import kernel_error, psnr
from metric_zoo.benchmarks.kernels.varying import EFFECTS, truth
from metric_zoo.benchmarks.launch import run_recipe
from metric_zoo.benchmarks.record import Record, read_record
from metric_zoo.benchmarks.weights import run_of, trained_model
from metric_zoo.demo import labelled_images, pretrained_lite0
from metric_zoo.explain import compare_filters, draw_balls, draw_cams, draw_fields
from metric_zoo.explain.figure import panels, save, show
from metric_zoo.geometry import ball_samples, fit_randers, geodesic_ball, metric_from_image
from metric_zoo.images import in_channels
from metric_zoo.nn import SampledConv2d
from metric_zoo.nn.recorder import first_inputs
from metric_zoo.nn.registry import featured_kinds
from metric_zoo.sparse import FilterBank, SparseKernelComplex
from metric_zoo.sparse.targets import get_target
from metric_zoo.text import markdown

HERE = Path(__file__).parent
PICTURES = HERE / "gallery"
SEED = 0


def main() -> None:
    """Write ``docs/gallery/*.png`` and ``docs/gallery.md``."""
    torch.manual_seed(SEED)
    parts = [filters(), edges(), denoisers(), implicit(), cams(), kernels(), varying()]
    head = (
        "# Gallery\n\nEvery picture here is made by [gallery.py](gallery.py) (`make gallery`, some minutes) from "
        "images that scikit-image and foolbox carry.\n\n"
    )
    (HERE / "gallery.md").write_text(head + "\n".join(parts), encoding="utf-8")


def _part(title: str, text: str, *names: str) -> str:
    pictures = "\n\n".join(f"![{title}](gallery/{name})" for name in names)
    return f"## {title}\n\n{text}\n\n{pictures}\n"


def filters() -> str:
    """The comparison of heuristic metrics, on noise of 0.1."""
    clean = embedded("camera")[None, :, 100:356, 120:376]
    generator = torch.Generator().manual_seed(SEED)
    noisy = (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    with tempfile.TemporaryDirectory() as folder:
        table = compare_filters(noisy, Path(folder), clean)
        PICTURES.mkdir(exist_ok=True)
        (PICTURES / "filters.png").write_bytes((Path(folder) / "comparison.png").read_bytes())
    text = (
        "Means over the unit balls of metrics that the picture's own edges give (`metric-zoo filter`): straight "
        "(tangent) and geodesic balls, long along the gradient or along the edge (grad_orth), with drifts of 0, 0.5 "
        "and 0.9.\n\n"
        f"```\n{table}\n```"
    )
    return _part("Metrics from the image", text, "filters.png")


def edges() -> str:
    """Tangent and geodesic balls of one metric across an edge."""
    picture = embedded("camera")[None, :, 60:124, 190:254]
    smooth = gaussian_blur(picture, [13, 13], [2.5, 2.5])  # or the texture would bend every geodesic
    metric = metric_from_image(smooth, axis="grad_orth", anisotropy=10.0, iota=1.0, tau=0.5, drift="grad_orth")
    reach, kernel = 4.0, 15
    straight = reach * ball_samples("polar", (kernel, kernel)).positions(metric)
    bent = geodesic_ball(metric, "polar", kernel, radius=reach, steps=24)
    figure, axes = panels(1, 2, 4.2)
    for place, samples, title in zip(axes[0], (straight, bent), ("tangent balls", "geodesic balls"), strict=True):
        show(place, picture, title, faint=0.75)
        for number, (row, column) in enumerate((r, c) for r in range(8, 64, 12) for c in range(8, 64, 12)):
            ring = samples[0, -kernel:, :, row, column].numpy() + np.array([column, row])
            colour = f"C{number % 6}"
            place.fill(*ring.T, facecolor=colour, edgecolor=colour, alpha=0.4, linewidth=1)
    save(figure, PICTURES / "edges.png")
    text = (
        "The outermost samples of balls of radius 4 of the same metric field. A tangent ball knows the metric of its "
        "own pixel only; a geodesic one bends where the metric changes, and flows along the edge."
    )
    return _part("Tangent and geodesic balls", text, "edges.png")


def _trained(recipe: Mapping) -> list[tuple[Record, nn.Module]]:
    """Run a recipe, and the networks that it trained."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(yaml.safe_dump(dict(recipe)), encoding="utf-8")
        run_recipe(path, Path(folder) / "out", cpu=True, weights=True)
        return [(read_record(p), trained_model(p)) for p in sorted((Path(folder) / "out").glob("*.json"))]


def denoisers() -> str:
    """Single layers that learned to remove noise: where they read."""
    frozen = {"init": "uniform", "freeze_kernels": True}
    recipe = {
        "name": "gallery",
        "task": "denoising",
        "data": {"name": "scikit-image", "noise": 0.1, "image_size": 128},
        "models": [{"name": "single-layer", "source": "metric-zoo", "options": {"kernel_size": 5}}],
        "kinds": [
            {"kind": "metric", **frozen, "options": {"sampling": "polar", "scale": [0.1, 1.5], "eps_omega": 0.1}},
            {"kind": "deformable", **frozen},
        ],
        "train": {"epochs": 15, "batch_size": 16, "optimizer": "sgd", "weight_decay": 0.0, "head_lr_scale": 1.0,
                  "schedule": "constant", "search": {"lr": [1.0, 10.0, 100.0], "epochs": 2}},
        "measure": {"batch_size": 1, "repeats": 3, "seconds": 0},
    }  # fmt: skip
    picture = embedded("camera")[None, :, 100:148, 200:248]
    generator = torch.Generator().manual_seed(SEED)
    noisy = (picture + 0.1 * torch.randn(picture.shape, generator=generator)).clamp(0, 1)
    names, rows = [], []
    for record, model in _trained(recipe):
        names.append(f"denoiser-{record.kind}.png")
        draw_balls(model, noisy, noisy, PICTURES / names[-1], grid=7)
        rows.append([record.kind, f"{record.test.psnr:.2f}", f"{record.test.mse:.5f}", f"{record.lr:g}"])
        if record.kind == "metric":
            names.append("denoiser-fields.png")
            draw_fields(model, noisy, noisy, PICTURES / names[-1], "conv")
    table = markdown(
        ["convolution", "test PSNR, dB", "test MSE", "learning rate found"], rows, [False, True, True, True]
    )
    text = (
        "One layer of 5 x 5 samples with frozen, equal weights learned from scikit-image's pictures to remove noise of "
        "0.1 (the metric-convolution paper's dataset denoising, in small). Where does it read on a picture of the test "
        f"split?\n\n{table}"
    )
    return _part("What a denoiser learns", text, *names)


def implicit() -> str:
    """How much of trained deformable and shifted layers' offsets a Randers ball explains."""
    recipe = {"extends": "digits", "name": "gallery", "seeds": [SEED], "kinds": ["deformable", "shifted"],
              "measure": {"repeats": 3}}  # fmt: skip
    rows = []
    for record, model in _trained(recipe):
        data = load_data(run_of(record).data)
        images = torch.stack([data.test[i][0] for i in range(64)])
        for name, shares in _explained(model, images).items():
            rows.append([record.kind, name, *(f"{share:.0%}" for share in shares)])
    table = markdown(
        ["convolution", "layer", "explained, every window by itself", "by one predicted metric layer (init='fit')"],
        rows,
        [False, False, True, True],
    )
    text = (
        "In theory every convolution samples the unit ball of some metric. So how much of what trained deformable and "
        "shifted layers do can a Randers ball say? Here for networks trained on scikit-learn's digits: the share of "
        "the samples' squared distances from the ordinary grid, (a) with the best metric for every window by itself "
        "(`mz.geometry.fit_randers`), and (b) with what a metric layer predicts from the image "
        "(`mz.convert(model, 'metric', init='fit')`). A shift moves the ball's centre, which a drift does only in "
        f"part: much of it stays unexplained.\n\n{table}"
    )
    return _part("Implicit metrics", text)


def _explained(model: nn.Module, images: Tensor) -> dict[str, tuple[float, float]]:
    """By layer: window by window, and by a fitted layer."""
    fitted = mz.conversion_report(mz.convert(model, "metric", init="fit", example_input=images)).converted
    layers = {name: m for name, m in model.named_modules() if isinstance(m, SampledConv2d)}
    found = {}
    with torch.no_grad():
        with first_inputs(layers.values()) as seen:
            model(images)
        for name, layer in layers.items():
            positions = layer.sample_positions(seen[layer])
            ball = fit_randers(positions, layer.kernel_size, layer.dilation)
            grid = ball_samples("grid", layer.kernel_size, layer.dilation)
            ours = grid.positions(ball.metric)
            still = grid.displacement.to(positions)[None, :, :, None, None]
            share = 1 - ((positions - ours).square().sum() / (positions - still).square().sum()).item()
            found[name] = share, fitted[name].explained
    return found


def cams() -> str:
    """Grad-CAM of one pretrained network with several convolutions."""
    images, labels = labelled_images()
    base = pretrained_lite0()
    models = {"standard": base}
    for kind in featured_kinds():
        models[kind] = _adapted(mz.convert(base, kind, example_input=images[:1]), images, labels)
    chosen = [0, 8]
    names = []
    for index in chosen:
        names.append(f"grad-cam-{index}.png")
        input = images[index : index + 1]
        draw_cams(models, input, input / 2 + 0.5, PICTURES / names[-1], target=int(labels[index]))
    text = (
        "EfficientNet-Lite0 with its ImageNet weights, its depthwise convolutions converted, and the sampling heads "
        "alone trained for 20 steps on foolbox's 20 ImageNet pictures. Too little to say anything about accuracy: "
        "kernels and classifier are the same in all panels, so what differs is where they read. Grad-CAM for the right "
        "class."
    )
    return _part("Grad-CAM side by side", text, *names)


def _adapted(model: nn.Module, images: Tensor, labels: Tensor) -> nn.Module:
    """Its heads trained a little, in evaluation mode (statistics of 20 pictures would be none)."""
    optimizer = torch.optim.Adam(list(mz.nn.head_parameters(model)), lr=3e-3)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.zero_grad()
    return model.eval()


def kernels() -> str:
    """Dense kernels and what is fitted to them."""
    names = ("star", "heart", "ampersand", "knight", "horse", "coma")
    wanted = torch.stack([get_target(name) for name in names])
    fits = {f"{n}x4": SparseKernelComplex.fit(wanted, n, 4, seed=SEED) for n in (12, 24)}
    figure, axes = panels(1 + len(fits), len(names), 1.5)
    for column, name in enumerate(names):
        show(axes[0][column], (wanted[column] / wanted[column].max())[None, None], name)
        for row, (shape, every) in enumerate(fits.items(), start=1):
            fit = every[column]
            kernel = fit.kernel(49)
            miss = kernel_error(fit.kernel(), wanted[column])
            show(axes[row][column], (kernel / wanted[column].max())[None, None], f"{shape}, error {miss:.2f}")
    save(figure, PICTURES / "kernels.png")
    text = (
        "Kernels of 49 x 49 pixels (first row), and the dense kernels that 12 and 24 bilinear samples in each of four "
        "layers amount to, after 1,000 steps without a picture (`mz.sparse.SparseKernelComplex.fit`). Error: 2-norm of "
        "the difference as a share of the kernel's; most of it lies along the outlines, where photographs show little "
        "of it ([figures](kernels.md))."
    )
    return _part("Sparse kernel complexes", text, "kernels.png")


def varying() -> str:
    """A photograph under three filters that change from pixel to pixel."""
    picture = in_channels(embedded("astronaut"), 3)[None, :, :400, 56:456]
    parameters = {name: effect.map_of(*picture.shape[-2:]) for name, effect in EFFECTS.items()}
    figure, axes = panels(2, 1 + len(EFFECTS), 2.6)
    show(axes[0][0], picture, "the photograph")
    axes[1][0].set_axis_off()
    for column, (name, effect) in enumerate(EFFECTS.items(), start=1):
        bank = FilterBank.fit(effect.kernel_at, effect.grid, effect.samples, seed=SEED)
        found = bank.apply(picture, parameters[name][None].float(), outside="clamp")
        dense = torch.stack([truth(channel.double(), effect, parameters[name]) for channel in picture[0]])[None]
        show(axes[0][column], found, f"{name}, {bank.basis.reads} reads")
        show(axes[1][column], dense.float(), f"dense, 2,401 reads ({psnr(found.double(), dense):.1f} dB)")
    save(figure, PICTURES / "varying.png")
    text = (
        "Every pixel has a kernel of its own: a disk that grows away from the middle row, ellipses along circles around"
        " the middle, streaks away from it. Above by banks of fitted complexes that are blended at every pixel "
        "(`mz.sparse.FilterBank`), below by the dense kernels of every pixel."
    )
    return _part("A filter for every pixel", text, "varying.png")


if __name__ == "__main__":
    np.random.seed(SEED)
    main()
