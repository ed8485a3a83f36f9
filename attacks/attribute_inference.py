"""Attribute inference: one hidden column of a record, from its other columns, its label and the model's confidence.

Sources: Fredrikson et al. 2014 (USENIX Security) for the rule, the value that maximises prior times the model's answer;
Jayaraman and Evans 2022 (arXiv 2209.01292) for the baseline: most of what such attacks find is imputation from the
population, which needs no model. Here the prior is imputation itself, a logistic regression of the column on the others
over public records; chance is the same imputation with the label as a further input, and only what goes beyond it
counts. As a control, records that no version ever saw are attacked in the same way.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from mnemoscope.audit.answers.reconstruction import Case, Judged, Secret, VersionPair
from mnemoscope.audit.answers.signals import compute_signal
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput

__all__ = ["AttributeInference"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Partial:
    """What is told: by hidden column all others, (k, d - 1) float32, and the labels (k,) int64."""

    others: dict[int, NDArray[np.float32]]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class AttributeInference:
    """Guess hidden columns of a table's deleted records from the later version's confidence in their label.

    Attributes:
        columns: columns that are hidden, one at a time; () takes the ``most`` columns whose public values vary most.
        most: number of columns tried where none are named.
        values: columns with more different public values than this are no categories and are refused or passed over.
    """

    columns: tuple[int, ...] = ()
    most: int = 8
    values: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        if self.most < 1 or self.values < 2 or any(column < 0 for column in self.columns):
            raise InvalidInput("attribute_inference: most must be 1 or more, values 2 or more, columns 0 or more")

    @property
    def name(self) -> str:
        """``attribute_inference``."""
        return "attribute_inference"

    @property
    def needs(self) -> Need:
        """Live answers with scores."""
        return Need.ORACLE | Need.SCORES

    @property
    def unit(self) -> str:
        """Share of right guesses."""
        return "share of hidden attributes guessed right"

    @property
    def note(self) -> str:
        """What is tried."""
        return (
            "each hidden column guessed by imputation times the later version's confidence in the record's label; "
            "chance: imputation from public records and the label, without the model"
        )

    def cannot(self, n_deleted: int, shape: tuple[int, ...]) -> str:
        """Say why records of this shape have no columns to hide; "" where they have."""
        return "" if len(shape) == 1 else f"attribute inference is for tables; records here have shape {shape}"

    def told(self, secret: Secret, pair: VersionPair) -> Partial:
        """All columns but the hidden one, for each column in turn, and the labels."""
        rows = secret.inputs
        if reason := self.cannot(len(rows), rows.shape[1:]):
            raise InvalidInput(reason)
        chosen = self._chosen(pair.after.inputs(pair.public).cpu().numpy())
        return Partial({column: np.delete(rows, column, axis=1) for column in chosen}, secret.labels)

    def recover(self, pair: VersionPair, told: Partial, *, rng: np.random.Generator) -> dict[int, Floats]:
        """Return guesses (k,) by column; ``rng`` is not used."""
        public = pair.after.inputs(pair.public).cpu().numpy()
        guesses = {}
        for column, others in told.others.items():
            values, log_prior = _impute(public, None, column, others, None)
            confidence = np.stack([self._confidence(pair, told, column, value) for value in values], axis=1)
            guesses[column] = values[(log_prior + confidence).argmax(axis=1)]
        return guesses

    def _chosen(self, public: NDArray[np.float32]) -> list[int]:
        if self.columns and max(self.columns) >= public.shape[1]:
            raise InvalidInput(
                f"attribute_inference: column {max(self.columns)} of a table with {public.shape[1]} columns"
            )
        categories = [np.unique(public[:, j], return_counts=True)[1] for j in range(public.shape[1])]
        if self.columns:
            bad = [j for j in self.columns if not 2 <= categories[j].size <= self.values]
            if bad:
                raise InvalidInput(
                    f"attribute_inference: column {bad[0]} has {categories[bad[0]].size} public values; a category "
                    f"has 2 to {self.values}. Name other columns"
                )
            return list(self.columns)
        usual = [c.max() / c.sum() if 2 <= c.size <= self.values else 1.0 for c in categories]
        chosen = [int(j) for j in np.argsort(usual, kind="stable")[: self.most] if usual[int(j)] < 1.0]
        if not chosen:
            raise InvalidInput(f"attribute_inference: no column has 2 to {self.values} different public values")
        return chosen

    def _confidence(self, pair: VersionPair, told: Partial, column: int, value: float) -> Floats:
        rows = np.insert(told.others[column], column, value, axis=1).astype(np.float32)
        logits = pair.after.logits(torch.from_numpy(rows).to(pair.after.device)).cpu().numpy()
        return compute_signal("negative_loss", logits[:, None], told.labels)[:, 0]

    def judge(self, recovered: dict[int, Floats], case: Case, *, rng: np.random.Generator) -> Judged:
        """One trial a record and column: right or wrong, beside imputation."""
        pair, secret = case.pair, case.secret
        public = pair.after.inputs(pair.public).cpu().numpy()
        labels = pair.after.labels(pair.public).cpu().numpy()
        value, chance = [], []
        for column, guess in recovered.items():
            truth = secret.inputs[:, column].astype(np.float64)
            rest = np.delete(secret.inputs, column, axis=1)
            values, log_p = _impute(public, labels, column, rest, secret.labels)
            value.append(guess == truth)
            chance.append(values[log_p.argmax(axis=1)] == truth)
        return Judged(np.concatenate(value).astype(np.float64), np.concatenate(chance).astype(np.float64))


def _impute(
    public: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    column: int,
    rest: NDArray[np.float32],
    own: NDArray[np.int64] | None,
) -> tuple[Floats, Floats]:
    """Values (v,) of a column and their log probabilities (k, v), by logistic regression over public records.

    ``labels`` of the public and ``own`` of the asked records are further inputs where they are given.
    """
    known = np.delete(public, column, axis=1).astype(np.float64)
    asked = rest.astype(np.float64)
    if labels is not None and own is not None:
        classes = np.union1d(labels, own)
        known = np.column_stack([known, labels[:, None] == classes])
        asked = np.column_stack([asked, own[:, None] == classes])
    values, coded = np.unique(public[:, column].astype(np.float64), return_inverse=True)
    model = LogisticRegression(C=0.1, max_iter=2000).fit(known, coded)
    return values, np.asarray(model.predict_log_proba(asked), np.float64)
