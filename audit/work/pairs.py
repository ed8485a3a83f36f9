"""Originals and their unlearned versions: trained, asked, and let go; only answers are kept.

Exact deletion in two settings: retraining on what is left, and SISA (Bourtoule et al. 2021, arXiv 1912.03817) without
slices: the records are dealt to shards, each shard has a model of its own, posteriors are averaged, and a deletion
retrains the touched shards alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.stacking import train_stacked
from mnemoscope.audit.records.pairs import PairsDesign
from mnemoscope.audit.rng import child_seed, generator
from mnemoscope.audit.work.tasks import check_seen, enough_memory

if TYPE_CHECKING:
    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.models.recipes import Recipe, Runtime

__all__ = ["PairAnswers", "RetrainSeeds", "answer_pairs"]

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]
RetrainSeeds = Literal["new", "same"]

STACK = 32
"""Models trained together where the runtime does not say."""

BESIDE = 500
"""At most so many training records of an original, and so many never-seen ones of its half, tell its accuracy."""


@dataclass(frozen=True, eq=False)
class PairAnswers:
    """Answers of every original and of every version on the version's own records.

    Attributes:
        design: who is asked what.
        labels: (v, 3g) int64 true classes of ``design.asked``.
        before: (v, 3g, c) float32 logits of the version's original; with shards, log posteriors.
        after: (v, 3g, c) float32 of the version.
        accuracy: (o, 2) float64 of each original on records it was trained on and on never-seen ones of its half:
            how far it overfits.
    """

    design: PairsDesign
    labels: NDArray[np.int64]
    before: Logits
    after: Logits
    accuracy: NDArray[np.float64]


class _Job(NamedTuple):
    """One model to train: for which original and shard, for which version (-1: the original), and whom to ask."""

    original: int
    shard: int
    version: int
    ids: Ids
    seed: int


def answer_pairs(
    design: PairsDesign,
    recipe: "Recipe",
    data: "DeviceData",
    *,
    runtime: "Runtime",
    seed: int,
    seeds: RetrainSeeds = "new",
    shards: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> PairAnswers:
    """Train all originals and versions, in stacks where the recipe allows it, and record their answers.

    Memory holds one stack of models and the answers: (v, 3g, c) twice, and per original the answers of each shard.

    Args:
        design: records of originals and versions.
        recipe: how every model, or every shard's model, is trained.
        data: records on the device.
        runtime: threads; ``stack`` models are trained together, 32 if None.
        seed: root of all training seeds and of the shards.
        seeds: "new" retrains from other initial weights, as a service that retrains does; "same" from the original's.
            Order of the records is drawn from the same seed then, but over fewer records it is another order: only
            where a batch holds all records does nothing but the deletion change.
        shards: 1 retrains the whole model; more is SISA with so many shards.
        progress: told (models trained, models in total).

    Raises:
        InvalidInput: an unknown setting, fewer records than shards, or a shard that a deletion would empty.
        AuditError: training diverged, or the optimiser saw other records than the design says.
    """
    if seeds not in get_args(RetrainSeeds):
        raise InvalidInput(f"seeds={seeds!r} is unknown; allowed: {', '.join(get_args(RetrainSeeds))}")
    if not 1 <= shards <= design.train.shape[1] // (design.group + 1):
        raise InvalidInput(
            f"shards={shards}: each of the originals' {design.train.shape[1]} records must find a shard, and no "
            f"deletion of {design.group} may empty one; use 1 to {design.train.shape[1] // (design.group + 1)}"
        )
    shard_of = _deal(design, shards, seed)
    beside = _beside(design, seed)
    asked = design.asked
    questions = [
        np.unique(np.concatenate([asked[design.original == o].ravel(), *beside[o]])) for o in range(design.n_originals)
    ]
    first = [
        _Job(o, s, -1, design.train[o][shard_of[o] == s], child_seed(seed, "pairs", "original", o, s))
        for o in range(design.n_originals)
        for s in range(shards)
    ]
    second = [job for v in range(design.n_versions) for job in _retrainings(design, shard_of, v, seeds, seed)]
    trainer = _Trainer(recipe, data, runtime, len(first) + len(second), progress)

    answers: list[list[Logits]] = [[np.empty(0, np.float32)] * shards for _ in questions]
    for job, logits in trainer.run(first, lambda job: questions[job.original]):
        answers[job.original][job.shard] = logits
    parts = []  # of every version, one a shard; the original's own until a shard is retrained
    for v, o in enumerate(design.original):
        at = np.searchsorted(questions[o], asked[v])
        parts.append([logits[at] for logits in answers[o]])
    before = np.stack([_average(part) for part in parts])
    for job, logits in trainer.run(second, lambda job: asked[job.version]):
        parts[job.version][job.shard] = logits
    after = np.stack([_average(part) for part in parts])

    classes = data.y.cpu().numpy()
    accuracy = np.empty((design.n_originals, 2))
    for o, groups in enumerate(beside):
        for column, ids in enumerate(groups):
            at = np.searchsorted(questions[o], ids)
            said = _average([logits[at] for logits in answers[o]]).argmax(axis=-1)
            accuracy[o, column] = (said == classes[np.searchsorted(data.ids, ids)]).mean()
    return PairAnswers(design, classes[np.searchsorted(data.ids, asked)], before, after, accuracy)


class _Trainer:
    """Trains jobs in stacks, asks each model, and lets it go before the next stack."""

    def __init__(
        self,
        recipe: "Recipe",
        data: "DeviceData",
        runtime: "Runtime",
        total: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.recipe, self.data, self.runtime = recipe, data, runtime
        self.total, self.done, self.progress = total, 0, progress

    def run(self, jobs: Sequence[_Job], ask: Callable[[_Job], Ids]) -> Iterator[tuple[_Job, Logits]]:
        """Yield each job with (k, c) float32 answers on the ids that ``ask`` names for it."""
        ordered = sorted(jobs, key=lambda job: job.ids.size)  # models with equally many records share a stack
        step = self.runtime.stack or STACK
        for start in range(0, len(ordered), step):
            group = ordered[start : start + step]
            with enough_memory(f"training {len(group)} models together", "choose a smaller runtime.stack"):
                trained = train_stacked(
                    self.recipe,
                    self.data,
                    [job.ids for job in group],
                    [job.seed for job in group],
                    runtime=replace(self.runtime, stack=step),
                )
            for job, model in zip(group, trained, strict=True):
                what = f"original {job.original}, version {job.version}"
                check_seen(model.seen_ids, job.ids, what, drawn=self.recipe.private)
                logits = infer_logits(model.module, self.data, ask(job), runtime=self.runtime)
                yield job, logits[:, 0]
            self.done += len(group)
            if self.progress is not None:
                self.progress(self.done, self.total)


def _deal(design: PairsDesign, shards: int, seed: int) -> NDArray[np.int64]:
    """Return (o, k) int64: the shard of every training record; shard sizes differ by at most one."""
    k = design.train.shape[1]
    return np.stack(
        [generator(seed, "pairs", "shards", o).permutation(np.arange(k) % shards) for o in range(design.n_originals)]
    )


def _retrainings(
    design: PairsDesign, shard_of: NDArray[np.int64], version: int, seeds: RetrainSeeds, seed: int
) -> Iterator[_Job]:
    """Yield a job for each shard that a version's deletion touches (in controls: would touch)."""
    o = int(design.original[version])
    named = np.isin(design.train[o], design.named[version])
    for s in np.unique(shard_of[o][named]).tolist():
        stays = (shard_of[o] == s) & ~(named & design.removed[version])
        key = ("original", o, s) if seeds == "same" else ("version", version, s)
        yield _Job(o, s, version, design.train[o][stays], child_seed(seed, "pairs", *key))


def _beside(design: PairsDesign, seed: int) -> list[tuple[Ids, Ids]]:
    """Return for each original up to ``BESIDE`` ids of its training records and of its half's never-seen ones."""
    found = []
    for o in range(design.n_originals):
        rng = generator(seed, "pairs", "beside", o)
        never = np.unique(design.never[design.half[design.original] == design.half[o]])
        members, others = (rng.permutation(ids)[:BESIDE] for ids in (design.train[o], never))
        found.append((members, others))
    return found


def _average(shards: Sequence[Logits]) -> Logits:
    """Return log of the mean posterior of the shards, (k, c) float32; one model's logits as they are."""
    if len(shards) == 1:
        return shards[0]
    logp = log_softmax(np.stack(shards).astype(np.float64), axis=-1)
    return np.asarray(logsumexp(logp, axis=0) - np.log(len(shards)), np.float32)
