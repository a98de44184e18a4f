"""Denoising: data, scores, peers, learned fields, the search for a learning rate, whole runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from scipy import ndimage
from skimage import data as pictures
from skimage.filters import gaussian
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch.utils.data import DataLoader

from metric_zoo.benchmarks import dncnn
from metric_zoo.benchmarks.curves import draw_curves
from metric_zoo.benchmarks.data.noisy import NAMES, STEPS, load_noisy, load_noisy_image
from metric_zoo.benchmarks.launch import run_recipe
from metric_zoo.benchmarks.model import build_model
from metric_zoo.benchmarks.peer_settings import SETTINGS
from metric_zoo.benchmarks.peers import PEERS, build_peer, tune
from metric_zoo.benchmarks.per_pixel import learn_fields
from metric_zoo.benchmarks.recipe import Recipe, load_recipe
from metric_zoo.benchmarks.recipe_sections import DataConfig
from metric_zoo.benchmarks.record_files import collected_files, entries, read_record
from metric_zoo.benchmarks.runs import expand
from metric_zoo.benchmarks.search import best_rate, held_out
from metric_zoo.benchmarks.show import show_record
from metric_zoo.benchmarks.single_layer import SingleLayer
from metric_zoo.benchmarks.tasks.denoising.training import Training, as_published, psnr, similarity, squared_error
from metric_zoo.benchmarks.weights import run_of, trained_model
from metric_zoo.converters import convert
from metric_zoo.errors import DataError, RecipeError

SMALL = DataConfig(name="scikit-image", noise=0.1, image_size=32)
FROZEN = {"init": "uniform", "freeze_kernels": True}
TASK = {
    "task": "denoising",
    "data": {"name": "scikit-image", "noise": 0.1, "image_size": 64},
    "models": [{"name": "single-layer", "source": "metric-zoo", "options": {"kernel_size": 3}}],
    "kinds": ["standard", {"kind": "shifted", **FROZEN}],
    "train": {"epochs": 1, "batch_size": 32, "optimizer": "sgd", "lr": 0.1, "weight_decay": 0.0},
    "measure": {"batch_size": 2, "warmup": 0, "repeats": 3, "seconds": 0},
}
SINGLE = {
    **TASK,
    "task": "single-image-denoising",
    "data": {"name": "scikit-image", "image": "coins", "noise": 0.2, "image_size": 32},
    "kinds": [{"kind": "deformable", "per_pixel": True, **FROZEN}],
    "train": {**TASK["train"], "batch_size": 1, "head_lr_scale": 1.0, "search": {"lr": [1.0, 1000.0], "epochs": 1}},
}


def run_small(write_recipe, tmp_path, **changes):
    out = tmp_path / "out"
    run_recipe(write_recipe(**changes), out, cpu=True, weights=True)
    return {path: read_record(path) for path in sorted(out.glob("*.json"))}


def test_scores_are_those_of_scikit_image():
    draw = np.random.default_rng(0)
    clean = np.stack([pictures.camera()[100:148, 100:160], pictures.moon()[:48, :60]]) / 255
    restored = clean + 0.1 * draw.standard_normal(clean.shape)
    ours = [torch.from_numpy(images)[:, None] for images in (restored, clean)]
    errors = squared_error(*ours)
    for index in range(2):
        pair = clean[index], restored[index]
        assert psnr(errors)[index].item() == pytest.approx(peak_signal_noise_ratio(*pair, data_range=1), rel=1e-9)
        options = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        assert similarity(*ours)[index].item() == pytest.approx(structural_similarity(*pair, **options), abs=1e-6)


def test_the_published_scale():
    """Means of [1, 3], [5, 7], [9] over five images."""
    assert as_published(torch.tensor([1.0, 3, 5, 7, 9]), 2) == pytest.approx((2 + 6 + 9) / 5)
    assert as_published(torch.full((64,), 0.32), 32) == pytest.approx(0.01)


def test_noise_is_gaussian_then_clipped():
    splits = load_noisy(SMALL)
    noisy, clean = (torch.stack(part) for part in zip(*(splits.test[i] for i in range(len(splits.test))), strict=True))
    grey = (clean > 0.4) & (clean < 0.6)
    assert (noisy - clean)[grey].std().item() == pytest.approx(0.1, rel=0.02)
    assert abs((noisy - clean)[grey].mean().item()) < 0.002
    assert noisy.min() == 0 and noisy.max() == 1


def test_scores_see_the_same_noise_again_and_training_does_not():
    splits = load_noisy(SMALL)
    for name, same in (("train", False), ("train_clean", True), ("test", True)):
        assert torch.equal(getattr(splits, name)[3][0], getattr(splits, name)[3][0]) is same
    assert torch.equal(splits.train[3][1], splits.train_clean[3][1])


def test_realisations_of_a_single_image():
    splits, other = load_noisy_image(SMALL, seed=0), load_noisy_image(SMALL, seed=1)
    seen = [part[0][0] for s in (splits, other) for part in (s.train, s.test, s.validation)]
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
    assert torch.equal(splits.train[0][0], splits.train[7][0]) and len(splits.train) == STEPS
    assert torch.equal(splits.train[0][0], splits.train_clean[0][0]) and splits.info.train_size == 1
    assert splits.info.fingerprint == other.info.fingerprint
    middle = pictures.camera()[240:272, 240:272] / 255
    np.testing.assert_allclose(splits.train[0][1][0], middle, atol=1e-6)
    assert held_out(splits).test is splits.validation


def test_embedded_pictures_are_cut_into_squares():
    splits = load_noisy(SMALL.model_copy(update={"image_size": 256}))
    assert splits.info.image_shape == (1, 256, 256) and splits.info.test_size == 4 + 4 + 1 + 1
    found = torch.stack([splits.test[i][1][0] for i in range(4, 8)])  # camera
    whole = pictures.camera() / 255
    expected = [whole[:256, :256], whole[:256, 256:], whole[256:, :256], whole[256:, 256:]]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-6)


@pytest.fixture
def folder(tmp_path):
    """Pictures of several kinds: grey, colour, 16 bits, one smaller than what is cut from it."""
    draw = np.random.default_rng(0)
    for name, shape, dtype in (
        ("train/a.png", (40, 50), np.uint8),
        ("train/b/c.png", (50, 40, 3), np.uint8),
        ("val/d.png", (40, 40), np.uint16),
        ("test/e.png", (8, 20), np.uint8),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, np.iinfo(dtype).max, shape).astype(dtype)
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "sizes"), [("folder", (2, 1)), ("bsds300", (2, 1)), ("bsds500", (3, 1))], ids=["folder", "300", "500"]
)
def test_folders(folder, name, sizes):
    splits = load_noisy(DataConfig(name=name, root=str(folder), noise=0.1, image_size=16))
    assert (splits.info.train_size, splits.info.test_size) == sizes and splits.info.image_shape == (1, 16, 16)
    colour = np.asarray(Image.open(folder / "train/b/c.png").convert("L"))[17:33, 12:28] / 255
    np.testing.assert_allclose(splits.train_clean[1][1][0], colour, atol=1 / 255)  # PIL rounds
    for split in (splits.train, splits.test):
        for index in range(len(split)):
            noisy, clean = split[index]
            assert noisy.shape == clean.shape == (1, 16, 16) and clean.min() >= 0 and clean.max() <= 1


def test_pascal_voc(folder):
    (folder / "JPEGImages").mkdir()
    for name in ("x", "y", "z"):
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "JPEGImages" / f"{name}.jpg")
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("x\ny\n")
    config = DataConfig(name="voc", root=str(folder), noise=0.1, image_size=16)
    with pytest.raises(DataError, match=r"val.txt cannot be read .*data.root or METRIC_ZOO_DATA"):
        load_noisy(config)
    (lists / "val.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match="val.txt cannot be read .it is not text in UTF-8"):
        load_noisy(config)
    (lists / "val.txt").unlink()
    os.mkfifo(lists / "val.txt")
    with pytest.raises(DataError, match="val.txt cannot be read .it is a named pipe"):
        load_noisy(config)
    (lists / "val.txt").unlink()
    (lists / "val.txt").write_text("z\n")
    assert load_noisy(config).info.train_size == 2
    (lists / "val.txt").write_text("w\n")
    with pytest.raises(DataError, match="w.jpg is missing"):
        load_noisy(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "bsd300"}, "did you mean 'bsds300'"),
        ({"name": "digits"}, f"known: {', '.join(NAMES)}"),
        ({"name": "folder", "root": "/nowhere"}, "has no pictures in train/"),
        ({"image_size": 10}, "at least 11 pixels"),
        ({"augment": "crop-flip"}, "are not augmented"),
        ({"skip_unreadable": True}, "skip_unreadable"),
    ],
)
def test_data_that_cannot_be_had(changes, message):
    with pytest.raises(DataError, match=message):
        load_noisy(SMALL.model_copy(update=changes))


def test_pictures_that_cannot_be_had(tmp_path):
    with pytest.raises(DataError, match="did you mean 'camera'"):
        load_noisy_image(SMALL.model_copy(update={"image": "camra"}), 0)
    with pytest.raises(DataError, match="not 'bsds300'"):
        load_noisy_image(SMALL.model_copy(update={"name": "bsds300"}), 0)
    with pytest.raises(DataError, match="cannot be read as a picture"):
        load_noisy_image(SMALL.model_copy(update={"name": "folder", "root": str(tmp_path), "image": "no.png"}), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"name": "scikit-image"}}, "data.noise=None"),
        ({"task": "classification"}, "data.noise=0.1"),
        ({"data": {**TASK["data"], "image": "camera"}}, "data.image is for the task single-image-denoising"),
        ({"train": {"search": {"lr": [1.0]}}}, "train.search.lr"),
        (
            {"train": {"search": {"lr": [1.0, 2.0], "epoch": 1}}},
            "unknown key 'epoch' in train.search; did you mean 'epochs'",
        ),
    ],
)
def test_recipes_that_make_no_sense(write_recipe, changes, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(write_recipe(**{**TASK, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peers": ["gausian"]}, "did you mean 'gaussian'"),
        ({"models": [{"name": "single", "source": "metric-zoo"}]}, "did you mean 'single-layer'"),
        ({"models": [{**TASK["models"][0], "options": {"kernel_size": 4}}]}, "expected an odd one"),
        ({"models": [{**TASK["models"][0], "options": {"width": 4}}]}, "width"),
        ({"kinds": [{"kind": "standard", "freeze_kernels": True}]}, "leave freeze_kernels out"),
        ({"kinds": [{"kind": "active", "per_pixel": True}]}, "leave per_pixel out"),
        ({"train": {"batch_size": 700, "search": {"lr": [1, 2]}}}, "images that a search leaves"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(write_recipe, tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message):
        run_recipe(write_recipe(**{**TASK, **changes}), tmp_path / "out", cpu=True)
    assert not list((tmp_path / "out").glob("*.json"))


def test_a_run_of_each_sort(write_recipe, tmp_path):
    """scipy applies the trained kernel; scikit-image scores and filters."""
    records = run_small(write_recipe, tmp_path, **TASK, peers=["gaussian"])
    assert sorted(record.kind for record in records.values()) == ["peer", "shifted", "standard"]
    splits = load_noisy(DataConfig(**TASK["data"]))
    pairs = [splits.test[i] for i in range(len(splits.test))]
    for path, record in records.items():
        model, test = trained_model(path), record.test
        if record.kind == "standard":
            kernel = model.conv.weight[0, 0].detach().double().numpy()
            found = [ndimage.correlate(noisy[0].double().numpy(), kernel, mode="constant") for noisy, _ in pairs]
        elif record.kind == "peer":
            found = [gaussian(noisy[0].double().numpy(), model.strength.item()) for noisy, _ in pairs]
        else:
            assert torch.equal(model.conv.weight, torch.full((1, 1, 3, 3), 1 / 9))  # frozen
            assert len(record.epochs) == 1 and record.epochs[0].test_mse == pytest.approx(test.mse)
            assert record.epochs[0].test_top1 is None
            continue
        clean = [pair[1][0].double().numpy() for pair in pairs]
        ratios = [peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(clean, found, strict=True)]
        assert test.psnr == pytest.approx(np.mean(ratios), abs=1e-4)
        assert record.generalization_gap == pytest.approx((test.mse - record.train.mse) / record.train.mse)
        assert test.images == len(pairs) == record.dataset.test_size
        assert record.inference.median > 0 and record.test_hits is None and record.robustness == {}


def test_a_single_image_and_its_learning_rate(write_recipe, tmp_path):
    (record,) = run_small(write_recipe, tmp_path, **SINGLE).values()
    assert set(record.searched) == {"1.0", "1000.0"}
    assert record.lr == float(min(record.searched, key=record.searched.get))
    assert record.parameters.heads == 2 * 9 * 32 * 32 and record.converted_layers == 1
    assert record.train.images == record.test.images == 1 and record.micro_batches == 1
    assert not (tmp_path / "out" / ".checkpoints").exists()


def test_what_was_tried_before_a_stop_counts(write_recipe, tmp_path):
    (run,) = expand(load_recipe(write_recipe(**SINGLE)))
    kept = tmp_path / "out" / ".checkpoints" / run.id / "search"
    kept.mkdir(parents=True)
    fingerprint = load_noisy_image(run.data, 0).info.fingerprint[:16]
    losses = {"1.0": 0.0, "1000.0": None}
    (kept / f"losses-{fingerprint}.json").write_text(json.dumps({"losses": losses, "seconds": 5000.0}))
    (kept / "losses-of-other-data.json").write_text(json.dumps({"losses": {"1.0": 9.0}, "seconds": 0.0}))
    (record,) = run_small(write_recipe, tmp_path, **SINGLE).values()
    assert record.searched == losses and record.lr == 1.0 and record.wall_seconds > 5000


def test_a_rate_that_diverges_costs_itself_alone(write_recipe, tmp_path):
    """Also one whose last step alone was too long: the evaluation sees it first."""
    data = {**TASK["data"], "image_size": 256}
    train = {**TASK["train"], "batch_size": 29, "search": {"lr": [0.01, 1e30], "epochs": 1}}
    changes = {**TASK, "kinds": ["standard"], "data": data, "train": train}
    (record,) = run_small(write_recipe, tmp_path, **changes).values()
    assert record.status == "ok" and record.searched["1e+30"] is None and record.lr == 0.01


def test_scores_are_in_float32_whatever_the_network_computes_in():
    """An image is like itself, also where autocast would blur the window of SSIM."""
    splits = load_noisy(SMALL)
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    pairs = [(clean, clean) for _, clean in (splits.test[i] for i in range(4))]
    scores = Training().evaluate(accelerator, torch.nn.Identity(), DataLoader(pairs, 2), 4, 2).scores
    AcceleratorState._reset_state(reset_partial_state=True)
    assert scores.ssim == pytest.approx(1, abs=1e-6) and scores.psnr > 100


def test_no_learning_rate_is_fine():
    with pytest.raises(FloatingPointError, match="with any learning rate of 1, 10"):
        best_rate({"1": None, "10": None})
    assert best_rate({"1": 0.5, "10": 0.25, "100": None}) == 10


def test_a_tenth_is_held_out():
    splits = load_noisy(SMALL)
    held = held_out(splits)
    assert len(held.test) == len(splits.train) // 10 and len(held.train) + len(held.test) == len(splits.train)
    assert (held.info.train_size, held.info.test_size) == (len(held.train), len(held.test))
    keys = [{part[i][1].numpy().tobytes() for i in range(len(part))} for part in (held.train_clean, held.test)]
    whole = {splits.train[i][1].numpy().tobytes() for i in range(len(splits.train))}
    assert keys[0] | keys[1] == whole and len(held.train) - len(keys[0]) <= len(splits.train) - len(whole)


def test_a_learned_field_is_a_deformable_convolution_with_these_offsets():
    model = convert(SingleLayer(1, 3), "deformable", where="stem+all", example_input=torch.zeros(1, 1, 8, 9))
    learn_fields(model, torch.rand(1, 1, 8, 9))
    field = model.conv.sampler.field
    assert field.shape == (1, 18, 8, 9) and field.requires_grad and not field.detach().any()
    with torch.no_grad():
        field.normal_()
    images = torch.rand(2, 1, 8, 9)
    expected = torchvision.ops.deform_conv2d(images, field.expand(2, -1, -1, -1), model.conv.weight, padding=1)
    torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


def test_colour_is_filtered_by_channel(write_recipe):
    data = {**TASK["data"], "channels": 3}
    run = expand(load_recipe(write_recipe(**{**TASK, "data": data})))[0]
    model = build_model(run, load_noisy(run.data).info)
    image = torch.rand(1, 3, 16, 16)
    kernels = model.conv.weight.detach().numpy()
    expected = [ndimage.correlate(image[0, c].numpy(), kernels[c, 0], mode="constant") for c in range(3)]
    np.testing.assert_allclose(model(image)[0].detach(), np.stack(expected), atol=1e-5)


def test_a_filter_is_tuned_on_training_pairs():
    """A grid of strengths, by scikit-image alone, finds none that is better."""
    splits, peer = load_noisy(SMALL), build_peer("gaussian", SMALL)
    tune(peer, splits.train_clean)
    pairs = [[image[0].numpy() for image in splits.train_clean[i]] for i in range(8)]

    def error(sigma):
        return np.mean([np.square(gaussian(noisy, sigma) - clean).mean() for noisy, clean in pairs])

    grid = np.geomspace(*peer.range, 60)
    assert error(peer.strength.item()) <= min(map(error, grid)) * 1.001


@pytest.mark.parametrize("name", [name for name in PEERS if not name.startswith("dncnn")])
@pytest.mark.parametrize("channels", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_filters_reduce_noise(name, channels):
    if name == "bm3d":
        pytest.importorskip("bm3d")
    config = SMALL.model_copy(update={"channels": channels})
    splits, peer = load_noisy(config), build_peer(name, config)
    tune(peer, splits.train_clean)
    noisy, clean = (torch.stack(part) for part in zip(*(splits.test[i] for i in (0, 40)), strict=True))
    found = peer(noisy)
    assert found.shape == noisy.shape and found.dtype == noisy.dtype
    assert (found - clean).square().mean() < 0.8 * (noisy - clean).square().mean()


@pytest.mark.parametrize("weight", [0.6, 1.5])
def test_total_variation_runs_to_convergence(weight):
    """A step edge has a closed form: its halves meet by weight / width of a half (Strong and Chan, 2003). At its usual
    tolerance scikit-image stops 0.15 away from it."""
    picture = torch.full((1, 1, 32, 32), 0.2)
    picture[..., 16:] = 0.8
    exact = picture + weight / 16 * torch.where(picture < 0.5, 1, -1)
    found = build_peer("total-variation", SMALL).filtered(picture, weight)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-3)


def test_what_a_peer_computes_otherwise_than_at_first_is_part_of_its_runs(write_recipe):
    runs = expand(load_recipe(write_recipe(**{**TASK, "peers": [*SETTINGS, "bm3d"]})))
    options = {run.model.name: run.convolution.options for run in runs if run.convolution.kind == "peer"}
    assert len(options) == len(SETTINGS) + 1
    assert options == {**{name: {} for name in options}, "total-variation": SETTINGS["total-variation"]}


_RESULTS = Path(__file__).parents[2] / "leaderboards" / "results"
RESULTS = [entry.record for file in collected_files(_RESULTS) for entry in entries(file)]


def test_published_peers_keep_their_ids():
    """All but total variation, which ran to scikit-image's own tolerance."""
    peers = [record for record in RESULTS if record.kind == "peer" and record.model != "total-variation"]
    assert peers
    for record in peers:
        run = run_of(record)
        parts = {name: getattr(run, name) for name in ("task", "data", "train", "measure")}
        parts |= {"models": [{"name": "resnet10t"}], "kinds": [{"kind": "standard"}], "seeds": [run.seed]}
        recipe = Recipe(name=run.recipe, peers=[run.model.name], **parts)
        assert record.id in {found.id for found in expand(recipe, run.processes, run.device)}, record.model


def test_a_peer_without_its_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bm3d", None)
    with pytest.raises(DataError, match="pip install bm3d"):
        build_peer("bm3d", SMALL)(torch.zeros(1, 1, 16, 16))


def weights_or_skip(depth: int) -> Path:
    try:
        return dncnn._find(f"dncnn{depth}M.mpk", DataConfig())
    except DataError as error:
        pytest.skip(str(error))


def test_dncnn_against_scipy():
    """Every layer once more, from the file's arrays as flax lays them out, by scipy's periodic correlation."""
    tree = dncnn._read(weights_or_skip(6))
    image = np.random.default_rng(0).random((12, 14))

    def conv(x, kernel):
        maps = range(kernel.shape[3])
        return np.stack(
            [sum(ndimage.correlate(x[i], kernel[:, :, i, o], mode="wrap") for i in range(len(x))) for o in maps]
        )

    weights = tree["params"]
    x = np.maximum(conv(image[None], weights["conv_start"]["kernel"].astype(float)), 0)
    for number in range(4):
        block, kept = weights[f"ConvBNBlock_{number}"], tree["batch_stats"][f"ConvBNBlock_{number}"]["BatchNorm_0"]
        x = conv(x, block["Conv_0"]["kernel"].astype(float))
        norm = [block["BatchNorm_0"]["scale"], block["BatchNorm_0"]["bias"], kept["mean"], kept["var"]]
        scale, bias, mean, variance = (array.astype(float)[:, None, None] for array in norm)
        x = np.maximum((x - mean) / np.sqrt(variance + 1e-5) * scale + bias, 0)
    expected = image - conv(x, weights["conv_end"]["kernel"].astype(float))[0]
    model = dncnn.load_dncnn("M", 6).double()
    with torch.no_grad():
        found = model(torch.from_numpy(image)[None, None])[0, 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_dncnn_removes_the_noise_it_was_trained_for():
    weights_or_skip(17)
    splits = load_noisy(SMALL.model_copy(update={"image_size": 128}))
    noisy, clean = (torch.stack(part) for part in zip(*(splits.test[i] for i in (0, 20, 30)), strict=True))
    with torch.no_grad():
        found = build_peer("dncnn-0.1", SMALL)(noisy)
    assert psnr(squared_error(found, clean)).mean() > psnr(squared_error(noisy, clean)).mean() + 7


def test_dncnn_without_weights(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.metadata.files", lambda name: None)
    config = DataConfig(root=str(tmp_path))
    with pytest.raises(DataError, match="pip install --no-deps scico"):
        dncnn.load_dncnn("M", config=config)
    (tmp_path / "dncnn17M.mpk").write_bytes(b"\xc1")
    with pytest.raises(DataError, match="does not hold flax's weights"):
        dncnn.load_dncnn("M", config=config)


def test_the_first_records_keep_their_identity():
    """Choices that are younger than a record are no part of its run."""
    assert RESULTS and [run_of(record).id for record in RESULTS] == [record.id for record in RESULTS]


def test_a_record_is_shown_and_its_curve_drawn(write_recipe, tmp_path):
    ((path, record),) = run_small(write_recipe, tmp_path, **SINGLE).items()
    text = show_record(path)
    assert f"PSNR {record.test.psnr:.2f} dB" in text and "of the training error" in text and "held-out losses" in text
    expected = -10 * np.log10(record.epochs[0].test_mse)
    assert record.epochs[0].test_score == pytest.approx(expected) and f"{expected:.3f}" in text
    draw_curves([path], tmp_path / "c.svg")
    assert "Test PSNR, dB" in (tmp_path / "c.svg").read_text()
