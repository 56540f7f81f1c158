"""Losses against torch and against formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from studio.errors import ConfigError
from studio.qat.losses import LOSSES, distillation


def test_classes() -> None:
    scores, labels = torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    expected = -torch.log_softmax(scores, 1)[torch.arange(6), labels].mean()
    torch.testing.assert_close(LOSSES["cross_entropy"]([scores], labels), expected)


def test_binary_and_regression() -> None:
    outputs, labels = torch.randn(4, 1), torch.tensor([0, 1, 1, 0])
    p = torch.sigmoid(outputs[:, 0])
    expected = -torch.where(labels == 1, p.log(), (1 - p).log()).mean()
    torch.testing.assert_close(LOSSES["binary"]([outputs], labels), expected)
    difference = outputs[:, 0] - labels
    torch.testing.assert_close(LOSSES["mse"]([outputs], labels), difference.square().mean())
    torch.testing.assert_close(LOSSES["l1"]([outputs], labels), difference.abs().mean())


def test_segmentation_ignores_the_void_and_fits_sizes() -> None:
    scores, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 8, 8))
    labels[0, :4] = 255
    large = F.interpolate(scores, (8, 8), mode="bilinear", align_corners=False)
    picked = -torch.log_softmax(large, 1).gather(1, labels.clamp(max=2)[:, None])[:, 0]
    expected = picked[labels != 255].mean()
    torch.testing.assert_close(LOSSES["segmentation"]([scores], labels), expected)


def test_ctc_of_one_label_over_two_steps() -> None:
    # Label "1" in two steps: (1, blank), (blank, 1), (1, 1).
    scores = torch.randn(1, 2, 3)
    p = scores.softmax(2)[0]
    likelihood = p[0, 1] * p[1, 0] + p[0, 0] * p[1, 1] + p[0, 1] * p[1, 1]
    found = LOSSES["ctc"]([scores], torch.tensor([[1, 0]]))
    torch.testing.assert_close(found, -likelihood.log())


def test_distillation_of_scores_and_of_other_outputs() -> None:
    student, teacher = torch.randn(4, 7), torch.randn(4, 7)
    p, q = (teacher / 4).softmax(1), (student / 4).softmax(1)
    expected = 16 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(distillation([student], [teacher], 4.0), expected)
    image, wanted = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    relative = (image - wanted).square().mean() / wanted.var(correction=0)
    torch.testing.assert_close(distillation([image], [wanted], 4.0), relative)
    assert distillation([teacher, image], [teacher, image], 4.0) == 0
    indices = torch.arange(4)
    both = distillation([image, indices], [wanted, indices], 4.0)
    torch.testing.assert_close(both, relative)


def test_labels_are_asked_for() -> None:
    with pytest.raises(ConfigError, match="needs labels"):
        LOSSES["mse"]([torch.zeros(1)], None)
