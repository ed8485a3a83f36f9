"""What methods share that train a model on retained records while forget records meet validation records."""

from collections.abc import Iterator

from mnemoscope.unlearning.base import Batch, Deletion

__all__ = ["meetings"]


def meetings(deletion: Deletion) -> Iterator[tuple[Batch, Batch]]:
    """Yield pairs of a forget and a validation batch of one size, without end, as they are (not augmented).

    Where a class is forgotten, validation records of that class stay out, unless there are no others: the model is to
    answer its records like those of other classes, not like unseen records of a class that it knows.
    """
    forget, other = deletion.request.forget, deletion.request.validation
    if deletion.request.kind == "class":
        foreign = other[deletion.labels(other) != deletion.labels(forget[:1])]
        other = foreign if foreign.size else other
    size = min(deletion.recipe.batch_size, forget.size, other.size)
    sides = [deletion.endless(deletion.stream(ids, batch_size=size, augment=False)) for ids in (forget, other)]
    for first, second in zip(*sides, strict=True):
        even = min(first.y.numel(), second.y.numel())
        yield _head(first, even), _head(second, even)


def _head(batch: Batch, size: int) -> Batch:
    return Batch(batch.x[:size], batch.y[:size], batch.positions[:size])
