"""A kind that no file of the package knows goes through all of it; it comes by an entry point, as others may."""

from __future__ import annotations

import ast
import importlib
import sys
import warnings
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import torchvision
from typer.testing import CliRunner

import metric_zoo as mz
from metric_zoo import ops
from metric_zoo.benchmarks.launch import run_recipe
from metric_zoo.benchmarks.record_files import read_record
from metric_zoo.cli import app
from metric_zoo.explain import draw_balls, probe
from metric_zoo.geometry import grid_offsets
from metric_zoo.leaderboards.build import build
from metric_zoo.nn import registry
from metric_zoo.nn.config import KindOptions
from metric_zoo.nn.kind import KINDS, kind, kind_of

ROOT = Path(__file__).parents[2]
OUTSIDE = Path(__file__).parent / "outside"


@pytest.fixture(scope="module", autouse=True)
def installed():
    """Its folder is on the path, as `pip install` would put it; processes that are launched find it too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(OUTSIDE)
        patch.setenv("PYTHONPATH", str(OUTSIDE), prepend=":")
        registry._load_others.cache_clear()
        mz.list_kinds()
        yield
    KINDS.pop("zoom", None)
    sys.modules.pop("zoom_kind", None)
    registry._load_others.cache_clear()


@pytest.fixture
def model():
    """Converted, with zooms that have been trained."""
    torch.manual_seed(0)
    found = mz.convert(timm.create_model("resnet10t", num_classes=5), "zoom").eval()
    return zoomed(found)


@torch.no_grad()
def zoomed(model: torch.nn.Module) -> torch.nn.Module:
    for layer in layers_of(model).values():
        layer.zoom.uniform_(0.5, 2.0)
    return model


def layers_of(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    return {name: m for name, m in model.named_modules() if kind_of(m) is not None}


def test_it_is_listed_after_the_package_s_own():
    assert tuple(mz.list_kinds()) == (*NAMES, "zoom")
    assert registry.get_kind("zoom").label == "zoomed"
    with pytest.raises(mz.MetricZooError, match="unknown kind 'zom'; did you mean 'zoom'"):
        registry.get_kind("zom")


OPTIONS = {"plain": {}, "grouped": {"stride": 2, "groups": 2}, "wide": {"kernel_size": (3, 5), "padding": (1, 2)}}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_samples_where_it_says(options):
    """The oracle is torchvision's deformable convolution, with the offsets of a zoom."""
    options = {"kernel_size": 3, "padding": 1, **options}
    layer = registry.get_kind("zoom").layer(4, 6, **options)
    assert layer.is_identity()
    with torch.no_grad():
        layer.zoom.fill_(1.4)
    assert not layer.is_identity()
    x = torch.randn(2, 4, 9, 8)
    output = layer(x)
    offset = (0.4 * grid_offsets(layer.kernel_size).flip(1)).float().reshape(1, -1, 1, 1)
    offset = offset.expand(2, -1, *output.shape[2:])
    expected = torchvision.ops.deform_conv2d(x, offset, layer.weight, layer.bias, layer.stride, layer.padding)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


def test_a_network_is_converted_reported_and_reverted():
    plain, x = timm.create_model("resnet10t", num_classes=5).eval(), torch.rand(1, 3, 64, 64)
    converted = mz.convert(plain, "zoom")
    report = mz.conversion_report(converted)
    assert report.converted and {entry.kind for entry in report.converted.values()} == {"zoom"}
    assert "zoom" in str(report) and set(layers_of(converted)) == set(report.converted)
    torch.testing.assert_close(converted(x), plain(x), rtol=1e-4, atol=1e-5)
    reverted = mz.revert(converted)
    assert not layers_of(reverted)
    torch.testing.assert_close(reverted(x), plain(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(mz.MetricZooError, match="start=0"):
        mz.convert(plain, "zoom", start=0)
    with pytest.raises(mz.ConversionError, match="does not start as the original"):
        mz.convert(plain, "zoom", start=2.0)


def test_its_rule_learns_slowly(model):
    rates = {id(p): group["lr"] for group in mz.parameter_groups(model, 1.0) for p in group["params"]}
    assert {rates[id(layer.zoom)] for layer in layers_of(model).values()} == {0.1}
    assert all(rates[id(layer.weight)] == 1.0 for layer in layers_of(model).values())


def test_names_of_registries_build_it():
    mz.register()
    assert "zoom_resnet10t" in timm.list_models("zoom_*") and "zoom_resnet18" in mz.list_models("resnet*", to="zoom")
    for built in (
        timm.create_model("zoom_resnet10t", num_classes=3),
        torchvision.models.get_model("zoom_resnet18", num_classes=3),
        mz.create_model("resnet10t", to="zoom", num_classes=3),
    ):
        assert layers_of(built) and all(m.kind == "zoom" for m in layers_of(built).values())


def test_it_comes_back_from_the_disk(model, tmp_path):
    mz.save(model, tmp_path)
    loaded, x = mz.load(tmp_path), torch.rand(1, 3, 64, 64)
    assert layers_of(loaded).keys() == layers_of(model).keys()
    assert torch.equal(loaded(x), model(x))


def test_its_balls_are_drawn(model, tmp_path):
    picture = torch.rand(1, 3, 64, 64)
    name, layer = next(iter(layers_of(model).items()))
    found = probe(model, picture, name)
    assert found.kind == "zoom" and not found.own
    assert name == "conv1.3"  # behind a stride of 2
    corner = 2 * layer.zoom.item() * torch.tensor([-1.0, -1.0])
    torch.testing.assert_close(found.samples[0, 0, :, 2, 2], corner)
    draw_balls(model, picture, picture, tmp_path / "balls.png")
    assert (tmp_path / "balls.png").stat().st_size > 1000


@pytest.mark.filterwarnings("ignore")
def test_exported_networks_compute_it(tmp_path):
    """The oracles are the network as it is, and onnxruntime."""
    x = torch.rand(1, 3, 16, 16)
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 5, 3, 2, padding=1))
    model = zoomed(mz.convert(plain, "zoom", where="1", example_input=x)).eval()
    expected = model(x).detach()
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected, rtol=1e-4, atol=1e-5)
    path = tmp_path / "model.onnx"
    table = ops.onnx_translations()
    torch.onnx.export(model, (x,), path, dynamo=True, verbose=False, custom_translation_table=table, opset_version=20)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-4)


RECIPE = """
extends: digits
name: outside
data: {name: digits, image_size: 8}
models: [{name: resnet10t, options: {channels: [8, 8, 8, 8]}, small_image_stem: true}]
kinds: [{kind: zoom, options: {start: 1.0}}]
seeds: [0]
train: {epochs: 2, batch_size: 256}
measure: {repeats: 3}
"""


def test_a_recipe_trains_it_and_the_board_shows_it(tmp_path):
    path, records = tmp_path / "outside.yaml", tmp_path / "records"
    path.write_text(RECIPE, encoding="utf-8")
    assert run_recipe(path, records, cpu=True)["ok"] == 1
    (record,) = map(read_record, records.rglob("*.json"))
    assert record.kind == "zoom" and record.config["kind"]["options"] == {"start": 1.0}
    assert 0 < record.parameters.heads < 10, "one number for every layer"
    board = build(records, tmp_path / "board").board
    assert list(board["kind"]) == ["zoom"]
    pages = {path.suffix for path in (tmp_path / "board").rglob("*.*") if b"zoom" in path.read_bytes()}
    assert {".html", ".csv", ".md", ".svg"} <= pages


def test_commands_know_it():
    result = CliRunner().invoke(app, ["inspect", "resnet10t", "--to", "zoom"])
    assert result.exit_code == 0 and "would become 'zoom'" in result.output


# --- what may go wrong


def test_a_taken_name_is_refused():
    with pytest.raises(mz.MetricZooError, match="kind 'zoom' is taken by zoom_kind.ZoomConv2d"):

        @kind("zoom", options=KindOptions, colour="#000000", marker="o")
        class Another(mz.nn.SampledConv2d):
            """Of another package."""


def test_a_module_that_is_loaded_again_declares_again():
    importlib.reload(sys.modules["zoom_kind"])
    assert registry.get_kind("zoom").layer is sys.modules["zoom_kind"].ZoomConv2d


BROKEN = {
    "fails": ("raise RuntimeError('no such device')", "no such device"),
    "absent": (None, "No module named 'broken_kind'"),
    "taken": (
        "from metric_zoo.nn import SampledConv2d\nfrom metric_zoo.nn.config import KindOptions\n"
        "from metric_zoo.nn.kind import kind\n"
        "@kind('metric', options=KindOptions, colour='#000000', marker='o')\nclass Mine(SampledConv2d): pass\n",
        "kind 'metric' is taken",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_package_costs_one_warning(name, tmp_path, monkeypatch):
    code, message = BROKEN[name]
    info = tmp_path / "broken_kind-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-kind\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[metric_zoo.kinds]\nodd = broken_kind\n")
    if code:
        (tmp_path / "broken_kind.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    registry._load_others.cache_clear()
    with pytest.warns(UserWarning, match=f"the kind 'odd' of broken-kind cannot be loaded: .*{message}"):
        assert "metric" in mz.list_kinds()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mz.list_kinds()
    sys.modules.pop("broken_kind", None)


# --- no file but a kind's own knows its name

PACKAGES = ("metric_zoo", "converters", "benchmarks", "leaderboards")
NAMES = (
    *("standard", "dilated", "shifted", "similar", "affine", "stn", "snake", "active", "deformable", "modulated"),
    *("dcnv3", "dcnv4", "star", "metric", "geodesic", "sparse"),
)
OWN = {kind.layer.__module__ for kind in registry.list_layers().values()} | {"metric_zoo.nn.standard"}
EXCEPTIONS = {
    "metric_zoo/__init__.py": "a module of this name",
    "metric_zoo/cli.py": "the kind that a command takes where none is asked for",
    "metric_zoo/*/*filter*.py": "balls of a metric, not layers",
    "benchmarks/operators/*": "operators by name, beside those of others, and balls of a metric",
    "metric_zoo/sparse/initialize.py": "a start of the fit, of the DISK paper",
    "metric_zoo/ops/*": "operators, their arguments and their rules, after which kinds are named",
    "benchmarks/kernels/*": "kernels that are fitted, one in the form of a star",
    "benchmarks/recipe_sections.py": "what records call a network that is not converted; boards need it without torch",
    "benchmarks/tasks/*/published.py": "what a paper has published of each",
}


def literals(path: Path) -> set[str]:
    """Text in a file, but for the defaults of arguments that are called ``to``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node.args for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    defaults = set()
    for arguments in functions:
        positional = [*arguments.posonlyargs, *arguments.args]
        pairs = [*zip(positional[::-1], arguments.defaults[::-1], strict=False)]
        pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        defaults |= {id(value) for argument, value in pairs if argument.arg == "to"}
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in defaults]
    return {node.value for node in nodes if isinstance(node.value, str)}


def named() -> dict[str, set[str]]:
    """Names of kinds by the file that has them as text, but in the kinds' own files."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    paths = {path.relative_to(ROOT).as_posix(): path for path in files}
    others = {name: path for name, path in paths.items() if name.removesuffix(".py").replace("/", ".") not in OWN}
    found = {name: literals(path) & set(NAMES) for name, path in others.items()}
    return {name: kinds for name, kinds in found.items() if kinds}


def test_no_file_but_its_own_knows_a_kind_by_name():
    found = named()
    unexplained = {file: kinds for file, kinds in found.items() if not any(fnmatch(file, each) for each in EXCEPTIONS)}
    assert not unexplained
    lasting = [each for each, reason in EXCEPTIONS.items() if reason != "until merged"]
    assert all(any(fnmatch(file, each) for file in found) for each in lasting), "an exception for nothing"
    assert len(lasting) < 10
