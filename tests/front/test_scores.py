"""Predictions only: what the file may hold, what is refused, and that nothing heavy or executable is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mnemoscope.audit.answers.checks import (
    check_disjoint,
    check_logits,
    check_probabilities,
    looks_like_probabilities,
    to_logits,
)
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.predictions import run_scores

N, C = 400, 4
Arrays = dict[str, np.ndarray]


def arrays(seed: int = 0, *, member: bool = False, leak: float = 0.0, n: int = N) -> Arrays:
    rng = np.random.default_rng(seed)
    inside = np.repeat([True, False], n // 2)
    labels = rng.integers(0, C, n)
    hard = rng.normal(2.5, 1.0, n)

    def model(lift: float) -> np.ndarray:
        z = rng.normal(0, 0.3, (n, C)).astype(np.float32)
        z[np.arange(n), labels] += (hard + lift * inside + rng.normal(0, 1, n)).astype(np.float32)
        return z

    found: Arrays = {"logits": model(leak), "labels": labels}
    if member:
        return found | {"member": inside.astype(np.int8)}
    found["role"] = np.where(inside, "forget", "holdout")
    found["before_logits"] = model(2.5)
    return found


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def audit(tmp_path: Path, a: Arrays, **kw: object):  # type: ignore[no-untyped-def]
    np.savez(tmp_path / "p.npz", **a)
    return run_scores(tmp_path / "p.npz", **kw)  # type: ignore[arg-type]


def test_deletion_audit_is_complete(tmp_path: Path) -> None:
    result = audit(tmp_path, arrays(n=1200, leak=2.5), seed=3, title="Mine")
    subject = result.subjects[0]
    assert (result.mode, result.title, result.plan.seed) == ("one-model", "Mine", 3)
    assert subject.verdict.word == "OUTSIDE BOUND"
    assert subject.verdict.tier == "D"
    assert {s.role: s.n_records for s in result.data.sets} == {"forget": 600, "holdout": 600}
    assert result.plan.digest.startswith("sha256:")
    assert result.plan.alpha_source == "chosen from counts"
    assert result.costs
    assert result.limitations
    assert {c.id for c in result.data.checks} == {"sanity", "drift"}
    assert {(u.records, u.models) for u in subject.utility} == {
        ("forget", "before"), ("forget", "after"), ("holdout", "before"), ("holdout", "after"),
    }  # fmt: skip
    assert any("lira" in x.what for x in result.not_run)
    assert result.environment.packages["numpy"] == np.__version__
    assert str(tmp_path) not in repr(result)


def test_membership_gives_estimates_and_no_deletion_verdict(tmp_path: Path) -> None:
    a = arrays(member=True, leak=2.0)
    a |= {f"calibration_{k}": v for k, v in arrays(1, member=True, leak=2.0).items()}
    result = audit(tmp_path, a)
    subject = result.subjects[0]
    assert (result.mode, subject.verdict.word, subject.verdict.tier) == ("membership", "NOT ASSESSED", None)
    assert result.limits.highest_tier is None
    assert (result.plan.alpha, subject.endpoints) == (None, ())
    by_class = next(f for f in subject.findings if f.attack == "modified_entropy_by_class")
    assert by_class.balanced_accuracy.value is not None
    assert by_class.balanced_accuracy.value > 0.6
    assert by_class.auc.low is not None
    assert by_class.auc.low > 0.55


def test_retrained_shadow_and_population(tmp_path: Path) -> None:
    a = arrays(n=600)
    rng = np.random.default_rng(0)
    role = a["role"].astype("U10")
    role[500:] = "population"
    a["role"] = role
    a["retrained_probs"] = np.stack([softmax(a["logits"] + rng.normal(0, 1, a["logits"].shape)) for _ in range(5)])
    a["shadow_logits"] = np.stack([a["logits"] + rng.normal(0, 1, a["logits"].shape) for _ in range(4)])
    a["side"] = np.tile(np.array([[0], [0], [1], [1]], np.int8), (1, 600))
    a["side"][:, 500:] = 0
    result = audit(tmp_path, a, alpha=0.1)
    assert result.plan.primary_attack == "lira"
    assert {"rmia", "population", "modified_entropy_by_class"} <= set(result.plan.attacks)
    assert "lira_offline" not in result.plan.attacks
    assert (result.plan.alpha, result.plan.alpha_source) == (0.1, "given")
    assert {m.role for m in result.subjects[0].models} == {"before", "after", "retrained", "shadow"}


def changed(**change: object):  # type: ignore[no-untyped-def]
    return lambda a: a | change


def with_value(name: str, value: float):  # type: ignore[no-untyped-def]
    def apply(a: Arrays) -> Arrays:
        a[name] = a[name].copy()
        a[name][7, 1] = value
        return a

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_value("logits", np.nan), r"\[A1\] logits: 1 of 400 rows.*row 7.*Leave these records out"),
        (with_value("before_logits", np.inf), r"\[A1\] before_logits: 1 of 400"),
        (lambda a: a | {"logits": softmax(a["logits"])}, r"\[A2\] logits: all 400 rows.*probabilities"),
        (lambda a: {"probs": a["logits"], "labels": a["labels"], "role": a["role"]}, r"\[A3\] probs: 400 of 400"),
        (lambda a: a | {"labels": a["labels"] + 1}, r"\[A4\] labels: .* outside of the model's 4 classes \(4\)"),
        (lambda a: a | {"labels": a["labels"] + 0.5}, r"\[A4\] labels: given float64"),
        (lambda a: a | {"labels": a["labels"][:-1]}, r"\[A5\] labels: given .*\(399,\)"),
        (lambda a: a | {"before_logits": a["before_logits"][:, :3]}, r"\[A5\] before_logits"),
        (lambda a: a | {"retrained_logits": a["logits"]}, r"\[A5\] retrained_logits"),
        (lambda a: a | {"role": np.full(N, "forget")}, r"\[A7\] role holdout: 0 records"),
        (lambda a: a | {"role": np.full(N, "forgotten")}, r"unknown roles 'forgotten'; allowed: forget, holdout"),
        (lambda a: a | {"logit": a["logits"]}, r"unknown arrays 'logit' \(did you mean 'logits'\?\)"),
        (lambda a: a | {"before": a["logits"]}, r"'before' \(did you mean 'before_logits'\?\)"),
        (lambda a: a | {"member": np.ones(N)}, "both member and role"),
        (lambda a: a | {"probs": softmax(a["logits"])}, "both logits and probs"),
        (lambda a: {k: v for k, v in a.items() if k != "labels"}, "lacks labels"),
        (lambda a: {k: v for k, v in a.items() if k != "role"}, "lacks member or role"),
        (lambda a: a | {"shadow_logits": a["logits"][None]}, "shadow answers and side belong together"),
        (lambda a: a | {"shadow_logits": a["logits"][None], "side": np.full((1, N), 2)}, "side: allowed are 1"),
        (lambda a: a | {"calibration_labels": a["labels"]}, "calibration_logits .* belong together"),
        (lambda a: a | {"ids": np.zeros(N, np.int64)}, "ids stand more than once"),
        (lambda a: a | {"labels": np.roll(np.sort(a["labels"]), 57)}, "labels or preprocessing are probably wrong"),
        (lambda a: {k: v[190:208] for k, v in a.items()}, r"\[A8\] 10 records .* 8 never-seen records are fewer"),
        (lambda a: a | {"labels": np.array([object()] * N)}, "labels: holds Python objects"),
    ],
)  # fmt: skip
def test_bad_input_names_the_array_and_the_remedy(change, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidInput, match=message):
        audit(tmp_path, change(arrays()))


def test_files_that_are_no_predictions(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such file"):
        run_scores(tmp_path / "absent.npz")
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(InvalidInput, match=r"bad\.npz: is no readable"):
        run_scores(bad)
    bad.write_bytes(b"")
    with pytest.raises(InvalidInput, match="no readable"):
        run_scores(bad)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(InvalidInput, match="single array"):
        run_scores(tmp_path / "one.npy")


def test_row_30_a_pickle_inside_never_runs(tmp_path: Path) -> None:
    """peer-defects row 30: files of the user are never unpickled."""
    mark = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (os.mkdir, (str(mark),))

    payload = np.empty(1, object)
    payload[0] = Hostile()
    file = tmp_path / "hostile.npz"
    np.savez(file, **(arrays() | {"labels": payload}))
    with pytest.raises(InvalidInput, match="could run code"):
        run_scores(file)
    assert not mark.exists()
    np.load(file, allow_pickle=True)["labels"]
    assert mark.exists()


def test_row_33_softmax_twice_is_refused() -> None:
    """peer-defects row 33: the release applies softmax to probabilities; the faulty signal hides the leak."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 4, (200, 5))
    p = softmax(z)
    faulty_spread = np.ptp(softmax(p).max(axis=1))
    assert faulty_spread < 0.5 * np.ptp(p.max(axis=1))
    assert looks_like_probabilities(p)
    assert not looks_like_probabilities(z)
    with pytest.raises(InvalidInput, match=r"\[A2\]"):
        check_logits("z", p)
    with pytest.raises(InvalidInput, match=r"\[A3\]"):
        check_probabilities("p", z)
    assert np.allclose(softmax(to_logits(p)), p, atol=1e-6)
    assert np.isfinite(to_logits(np.array([[1.0, 0.0]]))).all()


def test_overlapping_roles() -> None:
    check_disjoint({"forget": [1, 2], "holdout": [3]})
    with pytest.raises(InvalidInput, match=r"\[A6\] 2 records are both forget and holdout \(2, 3\)"):
        check_disjoint({"forget": [1, 2, 3], "holdout": [2, 3, 4]})


def test_no_torch_is_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", **arrays())
    code = (
        "import sys; from mnemoscope.predictions import run_scores; "
        f"run_scores({str(tmp_path / 'p.npz')!r}); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
