"""Modules of other libraries that compute with this one's operators: the same objects, of a class that is derived from
their own, as `torch.nn.utils.parametrize` and ``fully_shard`` do it."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ClassVar, NamedTuple, cast

from torch import nn
from torch.fx import Proxy

from metric_zoo.nn.leaf import Leaf
from metric_zoo.nn.published import rule_of
from metric_zoo.nn.rule import Sampling, SamplingRule
from metric_zoo.nn.script import refuse_script

_NEW: Any = vars(copyreg)["__newobj__"]
"""As the protocol of pickles makes an object."""
Compute = Callable[..., Any]
"""``(module, *args, **kwargs)``, the arguments of the module's forward -> what that returned; a function of a module's
top level, or no copy of the adopted module could be pickled."""


class Adoption(NamedTuple):
    """What became of a module.

    Attributes:
        published: the class that it had.
        compute: what its forward is now.
    """

    published: type[nn.Module]
    compute: Compute


class Adopted(Leaf, Sampling):
    """Mixed into the class of an adopted module, whose parameters, buffers, hooks, attributes and methods stay. It is a
    leaf for `torch.fx`; copies and pickles of it are adopted too."""

    metric_zoo_adoption: ClassVar[Adoption]
    """A name that no adopted module has for something of its own: all others are its own."""

    __prepare_scriptable__ = refuse_script

    def sampling_rule(self) -> SamplingRule | None:
        """As of `metric_zoo.nn.rule.Sampling`; None where the module's own code calls the operator."""
        published, compute = self.metric_zoo_adoption
        return rule_of(self, compute, published.__name__)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """By the published class, which can be found by its name."""
        make, arguments, *state = cast(Any, super().__reduce_ex__(max(protocol, 2)))
        if make is not _NEW:  # of a class with a way of its own
            return (make, arguments, *state)
        _, *others = arguments
        return (_blank, (*self.metric_zoo_adoption, *others), *state)


def own_class(module: nn.Module) -> type[nn.Module]:
    """The class of a module, of an adopted one the one that it had."""
    return module.metric_zoo_adoption.published if isinstance(module, Adopted) else type(module)


@cache
def adopted_class(published: type[nn.Module], compute: Compute) -> type[Adopted]:
    """The class of adopted modules that were of class ``published``; one for the same arguments.

    Raises:
        TypeError: for a class that does not let others be derived from it.
    """

    @wraps(published.forward)
    def forward(self: Adopted, *args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(first, Proxy):
            return self.recorded(first, *args, **kwargs)
        return compute(self, *args, **kwargs)

    members = {
        "__module__": published.__module__,
        "__doc__": published.__doc__,
        "metric_zoo_adoption": Adoption(published, compute),
        "forward": forward,
    }
    make: Any = type(published)  # perhaps a metaclass of its own
    return make(f"Adopted{published.__name__}", (Adopted, published), members)


def _blank(published: type[nn.Module], compute: Compute, *arguments: Any) -> Any:
    cls = adopted_class(published, compute)
    return cls.__new__(cls, *arguments)
