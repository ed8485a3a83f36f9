"""The distance that methods with a teacher train on."""

from torch import Tensor
from torch.nn import functional

__all__ = ["divergence"]


def divergence(target: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean over records of KL(target || softmax(logits / temperature)), in nats.

    The mean is over records, not over records times classes as in torch's default, which shrinks gradients by the
    number of classes.

    Args:
        target: (b, c) probabilities; zeros are allowed.
        logits: (b, c).
        temperature: positive.
    """
    return functional.kl_div((logits / temperature).log_softmax(dim=1), target, reduction="batchmean")
