"""Exported models against onnxruntime, which knows nothing of this project."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import metric_zoo as mz
from metric_zoo import ops
from metric_zoo.benchmarks.operators.calls import Call
from metric_zoo.ops.backends.native import library

pytestmark = [
    pytest.mark.skipif(not library.is_available(), reason=library.why_unavailable()),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(autouse=True, params=[None])
def backend():
    with ops.use_backend("native"):
        yield


class Operator(nn.Module):
    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call, self.names = call, tuple(call.leaves())

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.call.run(**dict(zip(self.names, tensors, strict=True)))


def exported(path, model, *inputs, table=True, **options):
    """With the table as one DeformConv, else as the exporter does by itself."""
    options = {"opset_version": 20, **options}
    translations = ops.onnx_translations() if table else None
    torch.onnx.export(model, inputs, path, dynamo=True, verbose=False, custom_translation_table=translations, **options)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda *arrays: session.run(
        None, {value.name: a.numpy() for value, a in zip(session.get_inputs(), arrays, strict=True)}
    )[0]


CALLS = {
    "metric": Call(fields=2, stride=(2, 1), padding=((1, 0), (2, 1))),
    "metric, polar": Call(sampling="polar", bias=False),
    "modulated, groups": Call(kind="modulated", groups=2, fields=2, dilation=(2, 1)),
    "shifted, even kernel": Call(kind="shifted", kernel=(2, 4)),
    "active": Call(kind="active", fields=2),
    "snake": Call(kind="snake", fields=2),
}


@pytest.mark.parametrize("table", [True, False], ids=["table", "plain"])
@pytest.mark.parametrize("name", CALLS)
def test_operators_run_in_onnxruntime(name, table, tmp_path):
    call = CALLS[name]
    leaves = call.leaves()
    run = exported(tmp_path / "operator.onnx", Operator(call), *leaves.values(), table=table)
    np.testing.assert_allclose(run(*leaves.values()), call.run(**leaves), rtol=1e-4, atol=1e-5)


def test_a_converted_network_runs_at_any_batch_and_size(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)).eval()
    net = mz.convert(net, where=["3"], example_input=torch.randn(1, 3, 24, 24))
    nn.init.normal_(net[3].sampler.weight, std=0.3)
    free = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)}
    run = exported(tmp_path / "net.onnx", net, torch.randn(2, 3, 24, 24), dynamic_shapes=(free,))
    for shape in ((2, 3, 24, 24), (1, 3, 31, 18)):
        x = torch.randn(shape)
        np.testing.assert_allclose(run(x), net(x).detach(), rtol=1e-4, atol=1e-5)


PLAIN = {
    "TensorFlow's padding": ("native", None, mz.nn.DeformConv2d(3, 4, 3, 2, "same")),
    "torch backend, an opset without DeformConv": ("torch", 18, mz.nn.ModulatedDeformConv2d(3, 4, 3, padding=1)),
    "shifted star": ("native", None, mz.nn.StarConv2d(3, 4, 3, padding=1, harmonics=3, shift=True)),
    "sparse": ("native", None, mz.nn.SparseKernelComplex2d(3, 7, 5, 2, 2, "same")),
    "metric": ("torch", 22, mz.nn.MetricConv2d(3, 4, 3, 2, "same")),
}


@pytest.mark.parametrize(
    "name", [*list(PLAIN)[:3], *(pytest.param(n, marks=pytest.mark.slow) for n in list(PLAIN)[3:])]
)
def test_plain_export_serves_all_sizes(name, tmp_path):
    backend_name, opset, layer = PLAIN[name]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    free = {0: "batch", 2: torch.export.Dim("height", min=16), 3: torch.export.Dim("width", min=16)}
    options = {"table": False, "opset_version": opset, "dynamic_shapes": (free,)}
    with ops.use_backend(backend_name):
        run = exported(tmp_path / "net.onnx", layer, torch.randn(2, 3, 24, 23), **options)
    for shape in ((2, 3, 24, 23), (1, 3, 31, 18)):
        x = torch.randn(shape)
        np.testing.assert_allclose(run(x), layer(x).detach(), rtol=1e-3, atol=1e-5)


def test_a_saved_program_is_exported_by_a_process_that_traced_nothing(tmp_path):
    layer = mz.nn.MetricConv2d(3, 4, 3, padding=1).eval()
    torch.export.save(torch.export.export(layer, (torch.randn(1, 3, 9, 9),)), tmp_path / "layer.pt2")
    program = (
        "import sys, torch, metric_zoo\n"
        "torch.onnx.export(torch.export.load(sys.argv[1]), f=sys.argv[2], dynamo=True, verbose=False)"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "layer.pt2", tmp_path / "layer.onnx"], check=True)
    x = torch.randn(1, 3, 9, 9)
    session = onnxruntime.InferenceSession(tmp_path / "layer.onnx")
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), layer(x), rtol=1e-4, atol=1e-5)


def test_an_opset_without_deform_conv_is_refused_with_the_table(tmp_path):
    layer, path = mz.nn.DeformConv2d(2, 2, 3), tmp_path / "layer.onnx"
    with pytest.raises(Exception, match="opset_version=18 has no DeformConv"):
        exported(path, layer, torch.randn(1, 2, 8, 8), opset_version=18)
    assert not path.exists()


@pytest.mark.slow
def test_geodesics_run_in_onnxruntime_at_any_size(tmp_path):
    layer = mz.nn.GeodesicConv2d(2, 3, 3, padding=1).eval()
    nn.init.normal_(layer.sampler.weight, std=0.2)
    free = {0: "batch", 2: torch.export.Dim("height", min=4), 3: torch.export.Dim("width", min=4)}
    run = exported(tmp_path / "layer.onnx", layer, torch.randn(2, 2, 8, 9), table=False, dynamic_shapes=(free,))
    for shape in ((2, 2, 8, 9), (3, 2, 7, 12)):
        x = torch.randn(shape)
        np.testing.assert_allclose(run(x), layer(x).detach(), rtol=1e-3, atol=1e-4)


class Blend(nn.Module):
    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return ops.blended_conv2d(*tensors)


@pytest.mark.parametrize("batch, table", [(1, True), (2, True), (2, False)])
@pytest.mark.parametrize("grid, samples", [((4,), 5), ((3, 2), 4)])
def test_blended_samples_run_in_onnxruntime_at_any_size(grid, samples, batch, table, tmp_path):
    def place(height: int, width: int) -> torch.Tensor:
        scale = torch.tensor(grid).view(1, -1, 1, 1)
        return torch.rand(batch, len(grid), height, width) * 1.2 * scale - 0.3

    tables = torch.randn(*grid, samples, 2) * 2, torch.randn(*grid, samples)
    height, width = (torch.export.Dim(name, min=4, max=64) for name in ("height", "width"))
    sizes = ({2: height, 3: width}, {2: height, 3: width}, None, None)
    given = (torch.randn(2, 3, 9, 11), place(9, 11), *tables)
    shapes = {"dynamic_shapes": {"tensors": sizes}}
    run = exported(tmp_path / "blend.onnx", Blend(), *given, table=table, **shapes)
    np.testing.assert_allclose(run(*given), ops.blended_conv2d(*given), rtol=1e-4, atol=1e-5)
    other = (torch.randn(2, 3, 14, 8), place(14, 8), *tables)
    np.testing.assert_allclose(run(*other), ops.blended_conv2d(*other), rtol=1e-4, atol=1e-5)
