"""The demonstration's first half: real ImageNet weights and pictures keep their answers."""

from __future__ import annotations

import pytest
import torch

import metric_zoo as mz
from metric_zoo.demo import labelled_images, pretrained_lite0
from tests.kinds import LOSSLESS, on_networks


@pytest.fixture(scope="module")
def pretrained():
    try:
        model, (images, labels) = pretrained_lite0(), labelled_images()
    except mz.DataError as error:
        pytest.skip(str(error))
    with torch.no_grad():
        return model, images, labels, model(images)


def test_the_weights_are_real(pretrained):
    _, _, labels, logits = pretrained
    assert (logits.argmax(1) == labels).sum() == 18
    assert (logits.topk(5).indices == labels[:, None]).any(1).sum() == 19


@pytest.mark.parametrize("kind", on_networks(LOSSLESS))
def test_answers_survive_conversion(pretrained, kind):
    model, images, _, before = pretrained
    with torch.no_grad():
        after = mz.convert(model, to=kind, example_input=images[:1])(images)
    assert (after - before).abs().max() <= 1e-5 * before.abs().max()


def test_answers_survive_the_disk(pretrained, tmp_path):
    model, images, _, _ = pretrained
    converted = mz.convert(model, to="metric", example_input=images[:1])
    mz.save(converted, tmp_path)
    with torch.no_grad():
        assert torch.equal(mz.load(tmp_path)(images[:4]), converted(images[:4]))
