"""Sparse kernel complexes: large filters as a few layers of a few reads, for one filter or for one at every pixel."""

from metric_zoo.sparse import targets
from metric_zoo.sparse.bank import FilterBank
from metric_zoo.sparse.complex import PADDING_MODES, SparseKernelComplex
from metric_zoo.sparse.initialize import INITS
from metric_zoo.sparse.loss import LOSSES

__all__ = ["INITS", "LOSSES", "PADDING_MODES", "FilterBank", "SparseKernelComplex", "targets"]
