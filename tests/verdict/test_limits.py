"""The table "what each input can say at most", row by row."""

import itertools
import re

import pytest

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.limits import limits_of
from mnemoscope.audit.verdict.rules import FORBIDDEN_WORDS


def test_row_one_model_who_is_a_member() -> None:
    x = limits_of("membership")
    assert x.highest_tier is None
    assert "leakage estimates with intervals" in x.may_say
    assert "no deletion verdict" in x.cannot_say


def test_row_before_after_forget_holdout() -> None:
    x = limits_of("one-model")
    assert x.highest_tier == "D"
    assert "absolute bound" in x.may_say
    assert "difference in differences" in x.may_say
    assert "as if retrained" in x.cannot_say
    assert "as if retrained" not in x.may_say


def test_without_the_before_model_the_change_cannot_be_stated() -> None:
    x = limits_of("one-model", has_before=False)
    assert x.highest_tier == "D"
    assert "difference in differences" not in x.may_say
    assert "power" in x.cannot_say


@pytest.mark.parametrize(
    ("n", "process", "tier"),
    [
        (1, False, "C"), (4, False, "C"), (4, True, "C"),
        (5, False, "B"), (18, False, "B"), (18, True, "B"),
        (19, False, "B"), (19, True, "A"), (50, True, "A"),
    ],
)  # fmt: skip
def test_row_retrained_models(n: int, process: bool, tier: str) -> None:
    x = limits_of("one-model", n_retrained=n, process_evidence=process)
    assert x.highest_tier == tier
    assert ("equivalence" in x.may_say) == (n >= 5)
    if n < 5:
        assert "offline per-record attack" in x.may_say
        assert "equivalence" in x.cannot_say


@pytest.mark.parametrize(("process", "tier"), [(False, "B"), (True, "A")])
def test_row_fleet(process: bool, tier: str) -> None:
    x = limits_of("procedure", has_fleet=True, process_evidence=process)
    assert x.highest_tier == tier
    assert "online per-record attack" in x.may_say
    assert "false-discovery control" in x.may_say
    assert "tail" in x.may_say


def test_population_attacks_alone_are_capped_at_c() -> None:
    assert limits_of("one-model", n_retrained=30, process_evidence=True, per_record=False).highest_tier == "C"
    assert limits_of("one-model", n_retrained=5, per_record=False).highest_tier == "C"
    assert limits_of("procedure", has_fleet=True, process_evidence=True, per_record=False).highest_tier == "C"


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(InvalidInput, match="needs a fleet"):
        limits_of("procedure")
    with pytest.raises(InvalidInput, match="allowed are"):
        limits_of("blackbox")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="0 or more"):
        limits_of("one-model", n_retrained=-1)


def test_no_forbidden_word_in_any_limit() -> None:
    grid = itertools.product(("one-model", "membership", "procedure"), (0, 1, 5, 19), (False, True), (False, True))
    for mode, n, process, flag in grid:
        x = limits_of(
            mode,
            n_retrained=n,
            has_fleet=True,
            process_evidence=process,
            has_before=flag,
            per_record=flag,  # type: ignore[arg-type]
        )
        for word in FORBIDDEN_WORDS:
            assert not re.search(rf"\b{word}\b", f"{x.may_say} {x.cannot_say}", re.I), (word, mode, n)
