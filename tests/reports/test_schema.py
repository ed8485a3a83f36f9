import hashlib
import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.result import SCHEMA_VERSION
from mnemoscope.reports.schema import (
    from_json,
    json_schema,
    read_result,
    result_digest,
    to_json,
    without_individuals,
    write_result,
)

MAKERS = ("result", "successive", "all_words", "one_model", "membership", "hostile")


@pytest.mark.parametrize("maker", MAKERS)
def test_round_trip_is_equal_and_canonical(factory, maker):
    made = without_individuals(getattr(factory, maker)())
    data = to_json(made)
    assert from_json(data) == made
    assert to_json(from_json(data)) == data
    assert json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False)  # plain JSON


@pytest.mark.slow
@pytest.mark.parametrize("maker", ["one_model", "membership", "hostile"])
def test_fixtures_fit_the_generated_schema(factory, maker):
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(to_json(getattr(factory, maker)())))


def test_schema_refuses_what_the_classes_refuse(factory):
    validator = jsonschema.Draft202012Validator(json_schema())
    document = json.loads(to_json(factory.membership()))
    for change in ({"surprise": 1}, {"mode": "certain"}, {"subjects": {}}):
        altered = {**document, **change}
        assert not validator.is_valid(altered)
        with pytest.raises(InvalidInput, match=next(iter(change))):
            from_json(json.dumps(altered))


def test_defect_27_sets_and_odd_objects_are_refused_not_turned_into_text(factory):
    """Row 27: auto-attack's saved state turns sets into strings, so resuming cannot work."""
    base = factory.subject("noop")
    bad = replace(base, settings={"layers": {"a", "b"}})  # type: ignore[dict-item]
    faulty = json.loads(json.dumps(bad.settings, default=str))
    assert faulty != bad.settings  # the fault: written without complaint, read back as something else
    with pytest.raises(InvalidInput, match=r"settings\.layers: a set cannot be written"):
        to_json(factory.result([bad]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -np.inf])
def test_no_number_that_json_lacks(factory, value):
    made = factory.membership()
    bad = replace(made, costs=(replace(made.costs[0], seconds=value),))
    with pytest.raises(InvalidInput, match=r"result\.costs\[0\]\.seconds.*no NaN or infinity"):
        to_json(bad)
    text = to_json(made).decode().replace('"seconds":1.9', '"seconds":NaN')
    with pytest.raises(InvalidInput, match="NaN is not a number"):
        from_json(text)


def test_large_seed_is_refused_with_its_place(factory):
    made = factory.membership()
    with pytest.raises(InvalidInput, match=r"result\.plan\.seed=.*2\*\*53"):
        to_json(replace(made, plan=replace(made.plan, seed=2**53)))
    assert from_json(to_json(replace(made, plan=replace(made.plan, seed=2**53 - 1)))).plan.seed == 2**53 - 1


def test_numpy_scalars_become_plain_numbers(factory):
    made = factory.membership()
    odd = replace(
        made,
        data=replace(made.data, n_records=np.int64(1797)),
        costs=(replace(made.costs[0], seconds=np.float32(0.5)),),
    )
    assert from_json(to_json(odd)).data.n_records == 1797


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (f"1.{int(SCHEMA_VERSION.split('.')[1]) + 1}.0", "newer release"),
        ("2.0.0", "newer release"),
        ("0.9.0", "older release"),
        ("one", "three numbers"),
        (None, "three numbers"),
    ],
)
def test_other_schema_versions_are_refused_with_a_sentence(factory, version, says):
    document = json.loads(to_json(factory.membership()))
    document["schema_version"] = version
    document["new_key_of_the_future"] = 1
    with pytest.raises(InvalidInput, match=says):
        from_json(json.dumps(document))


def test_a_patch_release_still_reads(factory):
    document = json.loads(to_json(factory.membership()))
    document["schema_version"] = "1.1.9"
    assert from_json(json.dumps(document)).schema_version == "1.1.9"


@pytest.mark.slow
def test_a_result_of_an_earlier_minor_release_still_reads(factory):
    """What release 1.0 did not know reads as empty."""
    document = json.loads(to_json(factory.result()))
    document["schema_version"] = "1.0.0"
    del document["coverage"], document["requests"]
    for subject in document["subjects"]:
        for key in ("measured", "defended", "epsilons", "reconstructed"):
            del subject[key]
    read = from_json(json.dumps(document))
    assert read.coverage == read.requests == ()
    assert all(s.measured == s.defended == s.epsilons == s.reconstructed == () for s in read.subjects)


@pytest.mark.parametrize("data", [b"", b"\x80\x04K\x01.", b"[1]", b"{", b"[" * 100_000])
def test_defect_30_files_that_are_no_result_are_refused(data):
    """Row 30: a pickle or any other file is never executed, only refused."""
    with pytest.raises(InvalidInput):
        from_json(data)


def test_individuals_stay_in_the_restricted_edition(factory):
    made = factory.result()
    assert any(s.exposed for s in made.subjects)
    assert b"digits/0017" not in to_json(made)
    assert b"digits/0017" in to_json(replace(made, edition="restricted"))


def test_digest_is_that_of_the_file(factory, tmp_path):
    made = factory.membership()
    path = write_result(made, tmp_path / "new" / "folder")
    assert result_digest(made) == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_result(path) == read_result(path.parent) == made
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(factory, tmp_path, monkeypatch):
    made = factory.membership()
    path = write_result(made, tmp_path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InvalidInput, match="No space left"):
        write_result(replace(made, title="other"), tmp_path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_a_bad_result_writes_nothing(factory, tmp_path):
    bad = replace(factory.membership(), costs=("no cost",))
    with pytest.raises(InvalidInput, match="costs"):
        write_result(bad, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_values_keep_their_reason(factory):
    made = from_json(to_json(factory.result()))
    missing = [t.tpr for s in made.subjects for f in s.findings for t in f.tpr if t.tpr.value is None]
    empty = [e.estimate for s in made.subjects for e in s.endpoints if e.estimate.value is None]
    assert empty
    assert all(e.reason for e in missing + empty)
    assert Estimate(None, reason="x") != Estimate(0.0)
