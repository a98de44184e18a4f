"""One run on a GPU: is the triton backend right there, and how far is it from what the GPU can do?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

from metric_zoo import ops
from metric_zoo.benchmarks.operators.calls import Call
from metric_zoo.benchmarks.operators.cases import Case
from metric_zoo.benchmarks.operators.check import SHAPES, WIDE, checks, is_repeatable, tf32
from metric_zoo.benchmarks.operators.check import cases as cases_of
from metric_zoo.benchmarks.operators.run import device_named, measure_cases, to_markdown
from metric_zoo.errors import MetricZooError
from metric_zoo.files import replacing
from metric_zoo.ops.backends.triton import INTERPRETED
from metric_zoo.timing import alternate, quartiles

JSON = "gpu.json"
DTYPES = (torch.float32, torch.bfloat16)
CASES = (
    Case(64, 256, 256, 56, 3),  # enough work for every processor of a large GPU
    Case(64, 64, 64, 56, 3),
    Case(64, 512, 512, 14, 3),
    Case(1, 64, 64, 512, 3),
    Case(64, 256, 256, 28, 7, 256),
)
"""Few: the first measurement of every kind, type and sort of shape compiles dozens of kernels."""
TILED = [(kind, next(iter(SHAPES)), "float32") for kind in WIDE]
"""Checks again, with gradients gathered in tiles."""
OPERATORS = ("conv2d", "torchvision", "metric", "deformable")

_SIDE, _COPIED = 8192, 1 << 30


def gpu_check(out: Path, device: str = "cuda", cases: tuple[Case, ...] = CASES, repeats: int = 7) -> str:
    """Check and measure the triton backend; write ``gpu.json`` after every step and return a summary.

    Args:
        out: folder of the file.
        device: a CUDA device, or ``"cpu"`` where TRITON_INTERPRET=1 runs the kernels.
        cases: what to measure, in float32 (TF32 where torch allows it) and bfloat16.
        repeats: of every contender, at least 3.

    Raises:
        MetricZooError: if the device or the backend is missing, or hidden behind triton's interpreter, or, after the
            file has been written, if a result is wrong.
    """
    where = device_named(device)
    if where.type == "cuda" and INTERPRETED:
        raise MetricZooError("TRITON_INTERPRET is set, so no kernel would run on the GPU: unset it for this command")
    report: dict[str, Any] = {"torch": torch.__version__, "checks": [], "benchmarks": []}
    out.mkdir(parents=True, exist_ok=True)

    def keep() -> None:
        with replacing(out / JSON) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    with ops.use_backend("triton"):
        from metric_zoo.ops.backends.triton import configs
        from metric_zoo.ops.backends.triton.launch import blocks_from

        for blocks, todo in ((configs.fixed, cases_of(where)), (configs.tiled, TILED)):
            with blocks_from(blocks):
                for check in checks(where, todo):
                    report["checks"].append({**check, "blocks": blocks.__name__})
                    keep()
        report["repeatable"] = all(is_repeatable(Call(kind=WIDE[-1], **shape), where) for shape in SHAPES.values())
        if where.type == "cuda":
            report["cuda_graph"] = _replays(Call(**SHAPES["large"]), where)
            report["ceilings"] = {str(dtype): ceilings(where, dtype, repeats) for dtype in DTYPES}
        keep()
        for dtype in DTYPES if where.type == "cuda" else DTYPES[:1]:
            for case in cases:
                report["benchmarks"].append(measure_cases([case], where, dtype, repeats, OPERATORS))
                if where.type == "cuda":
                    _add_roofline(report["benchmarks"][-1], case, report["ceilings"][str(dtype)])
                keep()
    wrong = [check for check in report["checks"] if not check["passed"]]
    wrong += [name for name in ("repeatable", "cuda_graph") if not report.get(name, True)]
    if wrong:
        raise MetricZooError(f"{len(wrong)} of {len(report['checks'])} checks failed, see {out / JSON}: {wrong[0]}")
    tables = "\n".join(to_markdown(benchmark) for benchmark in report["benchmarks"])
    return f"all {len(report['checks'])} checks passed\n\n{tables}"


def ceilings(device: torch.device, dtype: torch.dtype, repeats: int) -> dict[str, float]:
    """What the device reaches at best: bytes per second of a copy, operations per second of a product of matrices."""
    source = torch.randn(_COPIED // 4, device=device)
    target = torch.empty_like(source)
    a, b = torch.randn(2, _SIDE, _SIDE, device=device).to(dtype)

    def product() -> None:
        torch.matmul(a, b)

    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = cast(Any, torch.backends.cudnn).conv.fp32_precision
    try:
        times = alternate({"copy": lambda: target.copy_(source), "product": product}, repeats, device)
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    return {
        "bytes_per_second": 2 * _COPIED / quartiles(times["copy"])[1],
        "operations_per_second": 2 * _SIDE**3 / quartiles(times["product"])[1],
    }


def floor_seconds(case: Case, training: bool, dtype: torch.dtype, ceiling: dict[str, float]) -> float:
    """The time below which nothing computes a metric convolution: of its products or of its compulsory traffic."""
    pixels = case.batch * case.side**2
    product = 2 * pixels * case.out_channels * case.channels // case.groups * case.kernel**2
    weights = case.out_channels * case.channels // case.groups * case.kernel**2
    numbers = pixels * (case.channels + case.out_channels) + weights
    traffic = numbers * dtype.itemsize + 5 * 4 * pixels
    passes = 3 if training else 1  # of the product: forward, and one each for the gradients of samples and weight
    return passes * max(product / ceiling["operations_per_second"], traffic / ceiling["bytes_per_second"])


def _add_roofline(report: dict[str, Any], case: Case, ceiling: dict[str, float]) -> None:
    for result in report["results"]:
        if result["operator"] == "metric":
            dtype = getattr(torch, report["dtype"])
            least = floor_seconds(case, result["pass"] != "forward", dtype, ceiling)
            result["fraction_of_roofline"] = least * 1e3 / result["milliseconds"]["median"]


def _replays(call: Call, device: torch.device) -> bool:
    """Whether a forward pass recorded as a CUDA graph computes anew from what its input holds."""
    leaves = {name: tensor.to(device) for name, tensor in call.leaves().items()}
    run: Callable[[], torch.Tensor] = lambda: call.run(**leaves)  # noqa: E731
    with torch.no_grad(), tf32(False):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # kernels are compiled and measured outside of the recording
            run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = run()
        leaves["input"].copy_(torch.randn_like(leaves["input"]))
        graph.replay()
        return torch.allclose(output, run(), rtol=1e-4, atol=1e-4)
