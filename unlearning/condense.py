"""Clusters of a class, and one input that stands for each: "fast distribution matching" of Khan (arXiv 2402.00195).

Records of a class are clustered by K-means on the features that a model gives them (what enters its last layer). The
input that stands for a cluster is a weighted sum of the cluster's inputs, whose weights, 1/n at first, are learnt so
that its features come near the mean features of the cluster:

    min_w || f(sum_i w_i x_i) - (1/n) sum_i f(x_i) ||^2

All clusters are learnt side by side, which is the same as one after another: they share nothing, and Adam steps
entry by entry. The model is in eval mode, so no record's features depend on its batch; published code matches in train
mode, where statistics of a batch of one image stand for those of the data.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.errors import AuditError
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.steps import steps
from mnemoscope.unlearning.network_parts import features_of

__all__ = ["clusters_of", "condensed"]

Ids = NDArray[np.int64]

RECORDS_A_CLUSTER = 100 / 9
"""Published: 450 clusters for the 5,000 records of a class."""


def clusters_of(
    module: nn.Module,
    data: DeviceData,
    ids: Ids,
    *,
    clusters: int | None,
    rng: np.random.Generator,
    batch_size: int = 1024,
) -> list[Ids]:
    """Cluster the records of each class by K-means on the features of a model.

    Args:
        module: in eval mode; left as it is.
        data: the records.
        ids: (n,) int64 records.
        clusters: of each class, at most as many as its records differ in features; None is one for 11.1 records.
        rng: seeds K-means.
        batch_size: records of a forward pass.

    Returns:
        The ids (k,) of each cluster, ascending; every id is in exactly one. Classes in order.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    ids = np.sort(ids)
    positions = data.positions(ids)
    with features_of(module, data.inputs(positions[:1])) as ask, torch.no_grad():
        parts = [ask(data.inputs(part)).cpu().numpy() for part in torch.split(positions, batch_size)]
    features, labels = np.concatenate(parts).astype(np.float64), data.y[positions].cpu().numpy()
    found: list[Ids] = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        wanted = max(1, round(rows.size / RECORDS_A_CLUSTER)) if clusters is None else clusters
        seed = int(rng.integers(2**32))
        number = min(wanted, np.unique(features[rows], axis=0).shape[0])
        # One thread: sums of several are added in the order in which they end, and bits must repeat.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # two features may be the same within rounding
            member = KMeans(number, n_init=1, random_state=seed).fit(features[rows]).labels_
        found += [ids[rows[member == one]] for one in range(number) if (member == one).any()]
    return found


def condensed(
    module: nn.Module,
    data: DeviceData,
    clusters: Sequence[Ids],
    *,
    epochs: int = 100,
    lr: float = 1e-3,
    batch_size: int = 1024,
) -> Tensor:
    """Return one input for each cluster, a weighted sum of its inputs with the mean features of the cluster.

    Args:
        module: in eval mode, with weights that need no gradient; left as it is.
        data: the records.
        clusters: ids of each, k clusters, none empty.
        epochs: steps of Adam; 0 gives plain means.
        lr: its learning rate.
        batch_size: records of clusters that are learnt together; a larger cluster is learnt alone.

    Returns:
        (k, ...) float32 inputs on the data's device, in the order of the clusters.

    Raises:
        AuditError: the weights diverged.
    """
    if not clusters:
        return torch.empty(0, *data.input_shape, device=data.device)
    groups = list(_together(clusters, batch_size))
    found = []
    with features_of(module, data.inputs(data.positions(clusters[0][:1]))) as ask:
        for place in steps("condensation: clusters", len(groups)):
            found.append(_learnt(ask, data, groups[place], epochs, lr, batch_size))
    result = torch.cat(found)
    if not bool(result.isfinite().all()):
        raise AuditError("condensation diverged: the weights of a cluster are not finite; lower its condensation_lr")
    return result


def _together(clusters: Sequence[Ids], batch_size: int) -> Iterator[list[Ids]]:
    group: list[Ids] = []
    for one in clusters:
        if group and sum(other.size for other in group) + one.size > batch_size:
            yield group
            group = []
        group.append(one)
    yield group


def _learnt(
    ask: Callable[[Tensor], Tensor], data: DeviceData, group: list[Ids], epochs: int, lr: float, batch_size: int
) -> Tensor:
    x = data.inputs(data.positions(np.concatenate(group)))
    sizes = torch.tensor([one.size for one in group])
    owner = torch.arange(len(group)).repeat_interleave(sizes)
    # (clusters, records): a product with a matrix adds in a fixed order on every device, scattered sums do not.
    member = nn.functional.one_hot(owner, len(group)).T.to(x)
    flat = x.flatten(1)
    with torch.no_grad():
        features = torch.cat([ask(part) for part in torch.split(x, batch_size)])
        mean = (member / member.sum(dim=1, keepdim=True)) @ features
    weight = (1.0 / sizes[owner]).to(x).requires_grad_()
    # A record alone stands for itself; Adam would make a step as long as any other of a gradient that is rounding.
    learnt = (sizes[owner] > 1).to(x)
    optimizer = torch.optim.Adam([weight], lr=lr)

    def mixed() -> Tensor:
        return ((member * weight) @ flat).view(len(group), *x.shape[1:])

    for _ in range(epochs):
        loss = (ask(mixed()) - mean).square().sum()
        weight.grad = torch.autograd.grad(loss, [weight])[0] * learnt
        optimizer.step()
    with torch.no_grad():
        return mixed()
