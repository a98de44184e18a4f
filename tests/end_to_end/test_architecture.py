"""The house keeps its shape: public names, import directions, a light facade, a sound package."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import metric_zoo as mz
from metric_zoo.ops.backends.native import library

ROOT = Path(__file__).parents[2]

PUBLIC = {
    "mz": "ConvNode ConversionError ConversionReport DataError MetricZooError RecipeError RecordError __version__ "
    "adopt conversion_report convert create_model explain geometry list_kinds list_models load nn ops parameter_groups "
    "register revert save sparse",
    "mz.explain": "Look Probe compare_filters draw_balls draw_cams draw_fields explain_models grad_cam prepare probe "
    "sampled_layers",
    "mz.nn": "ActiveConv2d AffineConv2d DCNv3 DCNv3Conv2d DCNv4 DCNv4Conv2d DeformConv2d DilatedConv2d GeodesicConv2d "
    "KINDS MetricConv2d ModulatedDeformConv2d SampledConv2d ShiftedConv2d SimilarConv2d SnakeConv2d "
    "SparseKernelComplex2d SpatialTransformerConv2d StarConv2d freeze_kernels get_kind head_parameters "
    "head_regularization list_kinds parameter_groups sampling_health",
    "mz.ops": "affine_conv2d backend ball_filter bilinear_sample blended_conv2d deform_conv2d metric_conv2d "
    "onnx_translations sampled_conv2d shifted_conv2d snake_conv2d star_conv2d use_backend",
    "mz.sparse": "FilterBank INITS LOSSES PADDING_MODES SparseKernelComplex targets",
    "mz.geometry": "BallSamples DRIFTS ImplicitMetric MatrixOptions PARAMETRIZATIONS RandersMetric SAMPLINGS "
    "ball_samples constrain_drift fit_randers geodesic_ball grid_offsets hull_ball identity_raw metric_from_image "
    "metric_from_raw sobel_gradient",
}

SHARED = ("errors", "files", "images", "reading", "text", "timing", "__version__")
# What each part may import, itself and what is shared aside.
BELOW = {
    "geometry": set(),
    "ops": {"geometry"},
    "sparse": {"ops", "geometry"},
    "nn": {"sparse", "ops", "geometry"},
    "converters": {"nn", "sparse", "ops", "geometry"},
    "zoo": {"converters", "nn", "ops", "geometry"},
    "explain": {"nn", "ops", "geometry"},
    "benchmarks": {"explain", "sparse", "zoo", "converters", "nn", "ops", "geometry"},
    "leaderboards": {"benchmarks", "nn"},
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names(module):
    assert sorted(eval(module).__all__) == sorted(PUBLIC[module].split())
    for name in eval(module).__all__:
        assert getattr(eval(module), name) is not None


def test_unknown_names_raise():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mz.nothing  # noqa: B018


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # "from metric_zoo import nn" imports metric_zoo.nn.
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names}
                if node.module == "metric_zoo"
                else {node.module}
            )
    return found


@pytest.mark.parametrize("part", BELOW)
def test_imports_run_downward(part):
    folder = ROOT / part if (ROOT / part).is_dir() else ROOT / "metric_zoo" / part
    files = sorted(folder.rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            if name.startswith("metric_zoo."):
                target = name.split(".")[1]
                assert target in {part, *SHARED} | BELOW[part], f"{path.name} imports {name}"


def modules() -> dict[str, Path]:
    """Every module by its name, as it is installed."""
    folders = [ROOT / "metric_zoo", *(ROOT / name for name in ("converters", "benchmarks", "leaderboards"))]
    found = {}
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        found[name if name.startswith("metric_zoo") else f"metric_zoo.{name}"] = path
    return found


def imported_when_loaded(path: Path, known: set[str]) -> set[str]:
    """Modules that a file imports outside its functions and but for types, packages' own files aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            parts = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= parts or {node.module} & known
    return found


def test_no_modules_import_each_other():
    files = {name: path for name, path in modules().items() if path.name != "__init__.py"}
    graph = {name: imported_when_loaded(path, set(files)) for name, path in files.items()}
    assert sum(map(len, graph.values())) > 500
    TopologicalSorter(graph).prepare()  # raises a CycleError that names them


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_facade_is_light():
    heavy = "{'torch', 'timm', 'torchvision', 'accelerate', 'pandas', 'sklearn'}"
    assert run(f"import metric_zoo, sys; print({heavy} & set(sys.modules))") == "set()"
    assert run(f"import metric_zoo.cli, sys; print({heavy} & set(sys.modules))") == "set()"
    assert (
        run("import metric_zoo as mz, sys; mz.convert; print({'timm', 'pandas', 'accelerate'} & set(sys.modules))")
        == "set()"
    )


def test_leaderboards_need_no_torch():
    assert run("import metric_zoo.leaderboards.build, sys; print('torch' in sys.modules)") == "False"


def test_backend():
    before = mz.ops.backend()
    with mz.ops.use_backend("torch"):
        assert mz.ops.backend() == mz.ops.backend("cuda") == "torch"
    assert mz.ops.backend() == before
    with pytest.raises(mz.MetricZooError, match="unknown backend 'natve'.*did you mean 'native'"):
        mz.ops.use_backend("natve")


def test_the_native_backend_was_compiled():
    """Where there is a compiler; an installation without one works, but then these tests test half."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    assert library.is_available() or compiler is None, library.why_unavailable()


def test_every_package_is_installed():
    """A folder with code that the build configuration forgets would be missing from a wheel."""
    listed = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for folder in (ROOT / "metric_zoo", *(ROOT / p for p in ("converters", "benchmarks", "leaderboards"))):
        for init in folder.rglob("__init__.py"):
            relative = init.parent.relative_to(ROOT).as_posix().replace("/", ".")
            name = relative if relative.startswith("metric_zoo") else f"metric_zoo.{relative}"
            assert f'"{name}"' in listed, name


@pytest.mark.parametrize("module", ["geometry", "ops", "sparse", "nn", "converters", "zoo"])
def test_public_callables_are_documented(module):
    import importlib

    package = importlib.import_module(f"metric_zoo.{module}")
    for name in package.__all__:
        value = getattr(package, name)
        if callable(value):
            assert value.__doc__ and len(value.__doc__) > 40, name
