"""What a run is of: a network that learns, or a peer that stands beside those. Needs no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from metric_zoo.benchmarks.peer_settings import UNSAID, options_of
from metric_zoo.benchmarks.recipe_sections import UNCONVERTED, ConvolutionConfig, ModelConfig

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from metric_zoo.benchmarks.data.splits import Splits
    from metric_zoo.benchmarks.learning import Learning
    from metric_zoo.benchmarks.log import RunLog
    from metric_zoo.benchmarks.recipe import Recipe
    from metric_zoo.benchmarks.runs import Run
    from metric_zoo.benchmarks.schema import DatasetInfo


class Learner(ABC):
    """What a run is of.

    Attributes:
        trains: whether it takes steps: it has epochs, a learning rate to search for, batches to fill.
        is_rebuilt: whether a record's network can be built from its configuration alone, to count what it says.
        runs_on_device: whether it computes where the run does, so that a GPU's memory bounds its batch.
    """

    trains: ClassVar[bool]
    is_rebuilt: ClassVar[bool]
    runs_on_device: ClassVar[bool]

    @abstractmethod
    def runs(self, recipe: Recipe) -> Iterator[dict[str, Any]]:
        """Model, convolution and seed of every run of a recipe that is of one like it."""

    @abstractmethod
    def build(self, run: Run, data: DatasetInfo) -> nn.Module:
        """The module that answers.

        Raises:
            RecipeError: if it cannot be built for the data.
        """

    @abstractmethod
    def begin(
        self, run: Run, accelerator: Accelerator, splits: Splits, checkpoints: Path, log: RunLog, position: str
    ) -> Learning:
        """The learning of a run, about to start."""

    @abstractmethod
    def recipe_of(self, model: str, config: dict[str, Any]) -> dict[str, Any]:
        """The keys of a recipe for a run of one like it, from its model and configuration, which may lack parts."""

    def unsaid(self, model: str) -> dict[str, Any]:
        """Settings that records before a certain one leave out."""
        return {}


class Network(Learner):
    """Its convolutions are converted, its weights trained."""

    trains = is_rebuilt = runs_on_device = True

    def runs(self, recipe: Recipe) -> Iterator[dict[str, Any]]:
        for model in recipe.models:
            for seed in recipe.seeds:
                for convolution in recipe.kinds:
                    yield {"model": model, "convolution": convolution, "seed": seed}

    def build(self, run: Run, data: DatasetInfo) -> nn.Module:
        from metric_zoo.benchmarks.model import build_network

        return build_network(run, data)

    def begin(
        self, run: Run, accelerator: Accelerator, splits: Splits, checkpoints: Path, log: RunLog, position: str
    ) -> Learning:
        from metric_zoo.benchmarks.train import Trainer

        return Trainer(run, accelerator, splits, checkpoints, log, position)

    def recipe_of(self, model: str, config: dict[str, Any]) -> dict[str, Any]:
        plural = {"models": "model", "kinds": "kind", "seeds": "seed"}
        return {name: [config[one]] for name, one in plural.items() if one in config}


class Peer(Learner):
    """Of `metric_zoo.benchmarks.peers`: it learns nothing here, and a filter's strength is tuned."""

    kind: ClassVar[str] = "peer"
    """In a convolution's and a source's place."""
    colour: ClassVar[str] = "#6b6fd6"
    marker: ClassVar[str] = "X"
    """On plots, as of a kind."""
    trains = is_rebuilt = runs_on_device = False

    def runs(self, recipe: Recipe) -> Iterator[dict[str, Any]]:
        for name in recipe.peers:
            model = ModelConfig(name=name, source="peer")
            convolution = ConvolutionConfig(kind=self.kind, options=options_of(name))
            for seed in recipe.seeds:
                yield {"model": model, "convolution": convolution, "seed": seed}

    def build(self, run: Run, data: DatasetInfo) -> nn.Module:
        from metric_zoo.benchmarks.peers import build_peer

        return build_peer(run.model.name, run.data)

    def begin(
        self, run: Run, accelerator: Accelerator, splits: Splits, checkpoints: Path, log: RunLog, position: str
    ) -> Learning:
        from metric_zoo.benchmarks.peer_learner import Tuner

        return Tuner(run, accelerator, splits)

    def recipe_of(self, model: str, config: dict[str, Any]) -> dict[str, Any]:
        """A recipe of peers alone has one run more, of a network."""
        network = {"models": [{"name": "single-layer", "source": "metric-zoo"}], "kinds": [UNCONVERTED]}
        seeds = {"seeds": [config["seed"]]} if "seed" in config else {}
        return {**network, **seeds, "peers": [model]}

    def unsaid(self, model: str) -> dict[str, Any]:
        return UNSAID.get(model, {})


NETWORK, PEER = Network(), Peer()
LEARNERS = (NETWORK, PEER)


def learner_of(kind: str) -> Learner:
    """By what a configuration has as its kind of convolution."""
    return PEER if kind == PEER.kind else NETWORK
