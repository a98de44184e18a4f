"""The one thing that pyproject.toml cannot say: how the native backend is compiled.

It is a plain shared library, loaded through ctypes: it needs no torch (whose headers an isolated build lacks) and no
Python headers, and one file serves every Python version. Without a compiler the installation goes on without it.
"""

from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-fvisibility=hidden",
    # Sums may be reordered, hence become vectors. Infinities and NaN keep their meaning.
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fassociative-math",
    "-fno-signed-zeros",
]
OPENMP = "-fopenmp"


class BuildLibrary(build_ext):
    """Builds a library instead of a Python module."""

    def get_export_symbols(self, ext):
        return ext.export_symbols  # no PyInit function

    def get_ext_filename(self, fullname):
        return fullname.replace(".", "/") + ".so"  # no ABI tag

    def build_extension(self, ext):
        try:
            super().build_extension(ext)
        except CompileError:  # a compiler without OpenMP: one thread
            ext.extra_compile_args = [flag for flag in ext.extra_compile_args if flag != OPENMP]
            ext.extra_link_args = []
            super().build_extension(ext)


setup(
    cmdclass={"build_ext": BuildLibrary},
    ext_modules=[
        Extension(
            "metric_zoo.ops.backends.native.libmetric_zoo",
            sorted(glob("metric_zoo/ops/backends/native/csrc/*.cpp")),
            depends=sorted(glob("metric_zoo/ops/backends/native/csrc/*.h")),
            extra_compile_args=[*FLAGS, OPENMP],
            extra_link_args=[OPENMP],
            language="c++",
            optional=True,
        )
    ],
)
