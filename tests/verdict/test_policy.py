"""The policy: defaults, derived bounds, refusal of what is not known or not allowed."""

import dataclasses
from pathlib import Path

import pytest

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.policy import Policy, load_policy


def test_defaults_are_those_of_the_verdict_rules() -> None:
    p = Policy()
    assert (p.alpha, p.alpha_candidates, p.min_power) == (None, (0.001, 0.01, 0.05, 0.1), 0.70)
    assert p.tpr_bound(0.01) == 0.02
    assert p.tpr_margin_at(0.01) == 0.01
    assert p.exposure_bound_at(0.05) == 0.05
    assert p.retained_bound_at(0.01) == 0.02
    assert p.retained_bound_at(0.10) == 0.10
    assert (p.auc_margin, p.utility_margin, p.equivalence_level, p.holm_level) == (0.05, 0.02, 0.90, 0.05)
    assert (p.control_level, p.control_permutations, p.min_references, p.references_for_a) == (
        0.01,
        1999,
        5,
        19,
    )
    assert p.max_duplicate_share == 0.01


def test_given_values_replace_the_derived_ones() -> None:
    p = load_policy({"tpr_margin": 0.02, "exposure_bound": 0.03, "retained_bound": 0.04, "alpha": 0.05})
    assert (p.tpr_margin_at(0.05), p.exposure_bound_at(0.05), p.retained_bound_at(0.5)) == (0.02, 0.03, 0.04)
    assert p.candidates() == (0.05,)


def test_unknown_key_is_refused_and_the_nearest_suggested() -> None:
    with pytest.raises(InvalidInput, match=r"'tpr_ration'.*did you mean 'tpr_ratio'"):
        load_policy({"tpr_ration": 3.0})
    with pytest.raises(InvalidInput, match=r"'zzz'.*known keys: alpha"):
        load_policy({"zzz": 3.0})


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("alpha", 1, "not percent"),
        ("alpha", 5.0, "not percent"),
        ("alpha", True, "proportion"),
        ("level", 95, "not percent"),
        ("level", "0.95", "proportion"),
        ("level", float("nan"), "proportion"),
        ("alpha_candidates", [0.1, 0.01], "ascend"),
        ("alpha_candidates", [], "one or more"),
        ("alpha_candidates", 0.1, "list"),
        ("primary_order", "lira", "list"),
        ("tpr_ratio", 1.0, "above 1"),
        ("tpr_ratio", float("inf"), "finite"),
        ("min_references", 0, "at least 1"),
        ("min_references", 2.5, "whole number"),
        ("primary_attack", "", "name of an attack"),
    ],
)
def test_values_that_are_not_allowed_name_the_key(key: str, value: object, word: str) -> None:
    with pytest.raises(InvalidInput, match=word) as info:
        load_policy({key: value})
    assert key in str(info.value)


def test_toml_at_the_top_or_in_its_table(tmp_path: Path) -> None:
    flat = tmp_path / "flat.toml"
    flat.write_text("alpha = 0.05\nalpha_candidates = [0.05, 0.1]\n")
    nested = tmp_path / "nested.toml"
    nested.write_text("[policy]\nalpha = 0.05\nalpha_candidates = [0.05, 0.1]\n")
    assert load_policy(flat) == load_policy(str(nested)) == Policy(alpha=0.05, alpha_candidates=(0.05, 0.1))
    nested.write_text("alpha = 0.05\n[policy]\nlevel = 0.9\n")
    with pytest.raises(InvalidInput, match="outside of"):
        load_policy(nested)
    flat.write_text("alpha = ")
    with pytest.raises(InvalidInput, match="not valid TOML"):
        load_policy(flat)
    with pytest.raises(InvalidInput, match="cannot be read"):
        load_policy(tmp_path / "absent.toml")


def test_digest_moves_with_every_field_and_values_are_flat() -> None:
    base = Policy()
    assert base.digest == Policy().digest
    assert base.digest.startswith("sha256:")
    changed = {
        "alpha": 0.01, "tpr_margin": 0.02, "exposure_bound": 0.02, "retained_bound": 0.1, "primary_attack": "x",
        "alpha_candidates": (0.1,), "primary_order": ("a",), "claimed_epsilon": 2.0, "claimed_delta": 1e-5,
        "profile": "smoke",
    }  # fmt: skip
    for field in dataclasses.fields(Policy):
        value = getattr(base, field.name)
        if field.name not in changed:
            changed[field.name] = value + 1 if isinstance(value, int) or value >= 1 else value * 0.9
        assert dataclasses.replace(base, **{field.name: changed[field.name]}).digest != base.digest, field.name
    assert all(isinstance(v, str | int | float | bool | None) for v in base.as_dict().values())
    assert base.as_dict()["alpha_candidates"] == "0.001, 0.01, 0.05, 0.1"


def test_every_field_is_described() -> None:
    text = Policy.__doc__ or ""
    assert [f.name for f in dataclasses.fields(Policy) if f"        {f.name}: " not in text] == []


def test_primary_is_the_first_of_the_order_or_the_one_named() -> None:
    p = Policy(primary_order=("a", "b"))
    assert p.choose_primary(["b", "a", "z"]) == "a"
    assert p.choose_primary(["z", "y"]) == "z"
    assert Policy(primary_attack="b").choose_primary(["a", "b"]) == "b"
    with pytest.raises(InvalidInput, match="attacks that can: a"):
        Policy(primary_attack="b").choose_primary(["a"])
    with pytest.raises(InvalidInput, match="no attack can run"):
        p.choose_primary([])
