"""Classification losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.registry import Call, Result, op


@op("NegativeLogLikelihoodLoss", since=12, fresh=True)
def negative_log_likelihood_loss(
    call: Call, log_prob: Tensor, target: Tensor, weight: Tensor | None = None
) -> Tensor:
    """log_prob [N, C, *spatial], target [N, *spatial] -> a number, or [N, *spatial] unreduced.

    A mean is over the weights of the targets; targets equal to `ignore_index` count for nothing.
    """
    ignored = call.get("ignore_index", -100)
    reduction = call.get("reduction", "mean")
    return F.nll_loss(log_prob, target.long(), weight, ignore_index=ignored, reduction=reduction)


@op("SoftmaxCrossEntropyLoss", since=12, fresh=True)
def softmax_cross_entropy_loss(
    call: Call, scores: Tensor, target: Tensor, weight: Tensor | None = None
) -> Result:
    """The loss of the log-softmax of `scores` over axis 1, which is the second output."""
    log_prob = torch.log_softmax(scores, 1)
    loss = negative_log_likelihood_loss(call, log_prob, target, weight)
    return (loss, log_prob)[: call.outputs]
