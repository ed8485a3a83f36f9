"""A result computed again from what its audit stored: what agrees, and every way in which it cannot."""

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mnemoscope import cli
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.commitments import commit_records
from mnemoscope.audit.records.pseudonyms import pseudonym
from mnemoscope.audit.verdict.onemodel_rates import Group
from mnemoscope.audit.work.plan import parse_plan
from mnemoscope.audit.work.run_log import read_log
from mnemoscope.audit.work.side_arrays import ArrayWriter, SideArrays
from mnemoscope.controller_key import KEY_NAME, controller_key, read_key
from mnemoscope.evidence import ANSWERS, COMMITMENTS, LOG, SCORES
from mnemoscope.planned_again import plan_again
from mnemoscope.predictions import run_scores
from mnemoscope.recomputation import Recomputation, recompute_from_scores
from mnemoscope.reports.schema import read_result, write_result
from mnemoscope.rerun import rerun
from mnemoscope.rerun_text import DISAGREES, rerun_lines

N, CLASSES = 240, 4
FIRST_ID = 987_650_000_000


def predictions(path: Path, *, member: bool = False) -> Path:
    """Answers of a model that still knows the records, and of one before; ids that could be read in a file."""
    rng = np.random.default_rng(0)
    inside = np.repeat([True, False], N // 2)
    labels = rng.integers(0, CLASSES, N)

    def model(lift: float) -> np.ndarray:
        z = rng.normal(0, 0.3, (N, CLASSES)).astype(np.float32)
        z[np.arange(N), labels] += (rng.normal(2.5, 1.4, N) + lift * inside).astype(np.float32)
        return z

    arrays: dict[str, np.ndarray] = {"logits": model(2.5), "labels": labels, "ids": FIRST_ID + np.arange(N)}
    if member:
        arrays["member"] = inside.astype(np.int8)
    else:
        arrays |= {"role": np.where(inside, "forget", "holdout"), "before_logits": model(2.5)}
    np.savez(path, **arrays)
    return path


def audit(file: Path, out: Path, **options: Any) -> Path:
    write_result(run_scores(file, out=out, alpha=0.1, **options), out)
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    return audit(predictions(folder / "p.npz"), folder / "out")


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def edit(folder: Path, change: Callable[[Any], None]) -> Path:
    """Edit a result by hand, and keep its digests as they are."""
    path = folder / "result.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    return folder


def wrong(found: Recomputation) -> list[str]:
    assert found.agrees is (not found.disagreements)
    return [row.what for row in found.disagreements]


def forge(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> Path:
    """Rewrite the scores, and every digest that names them, as somebody would who wants not to be found."""
    path = folder / SCORES
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    change(arrays)
    path.unlink()
    with ArrayWriter(path) as writer:
        for name, array in arrays.items():
            writer.add(name, array)
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    document = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    old = next(file for file in document["evidence"] if file["path"] == SCORES)["sha256"]
    log = (folder / LOG).read_bytes().replace(old.encode(), digest.encode())
    (folder / LOG).write_bytes(log)
    new = f"sha256:{hashlib.sha256(log).hexdigest()}"
    heads = {document["log_head"]: read_log(log)[1]}

    def again(document: Any) -> None:
        for file in document["evidence"]:
            file["sha256"] = {SCORES: digest, LOG: new}.get(file["path"], file["sha256"])
        document["log_head"] = heads[document["log_head"]]

    return edit(folder, again)


def test_a_result_follows_from_its_scores(made: Path) -> None:
    found = recompute_from_scores(made)
    assert found.agrees
    assert len(found.rows) > 40
    what = {row.what: row for row in found.rows}
    assert what["p: word"].recomputed == read_result(made).subjects[0].verdict.word == "OUTSIDE BOUND"
    assert {f"{SCORES}: digest", f"{LOG}: head", "plan digest", "record set forget: root"} <= set(what)
    assert any("P1 TPR" in name for name in what)
    assert any("gate G1" in name for name in what)
    assert any(name.endswith(": AUC") for name in what)
    assert any("drift" in text or "G8" in text for text in found.taken_over)


def test_the_file_itself_may_be_named(made: Path) -> None:
    assert recompute_from_scores(made / "result.json").agrees


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s["verdict"].update(word="WITHIN BOUND"), "p: word"),
        (lambda s: s["verdict"].update(tier="A"), "p: tier"),
        (lambda s: s["verdict"].update(reasons=["all is well"]), "p: reasons"),
        (lambda s: s["endpoints"][0]["estimate"].update(value=0.01), "p: P1 TPR"),
        (lambda s: s["endpoints"][0].update(outcome="within"), "p: P1 TPR"),
        (lambda s: s["endpoints"][0].update(bound=0.9), "p: P1 TPR"),
        (lambda s: s["endpoints"].pop(0), "p: P1 TPR"),
        (lambda s: s["endpoints"].append({**s["endpoints"][0], "attack": "made up"}), "p: P1 TPR"),
        (lambda s: s["gates"][0].update(status="fail"), "p: gate G1"),
        (lambda s: s["findings"][0]["auc"].update(value=0.5), ": AUC"),
        (lambda s: s["findings"][0]["tpr"][0]["tpr"].update(value=0.0), ": rates"),
        (lambda s: s.update(name="another"), "subjects"),
    ],
)
def test_a_result_edited_by_hand_is_found_and_named(copy: Path, change: Callable[[Any], Any], named: str) -> None:
    found = wrong(recompute_from_scores(edit(copy, lambda document: change(document["subjects"][0]))))
    assert any(named in what for what in found), found


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d["plan"].update(alpha=0.05), "alpha"),
        (lambda d: d["plan"].update(digest="sha256:" + "0" * 64), "plan digest"),
        (lambda d: d["plan"]["policy"].update(tpr_ratio=5.0), "policy: tpr_ratio"),
        (lambda d: d.update(log_head="sha256:" + "0" * 64), f"{LOG}: head"),
        (lambda d: d["data"]["sets"][0].update(digest="sha256:" + "0" * 64), "record set forget: root"),
        (lambda d: d["data"]["sets"][0].update(n_records=7), "record set forget: root"),
        (lambda d: d["limits"].update(highest_tier="A"), "highest tier"),
    ],
)
def test_what_was_fixed_beforehand_cannot_be_changed_afterwards(
    copy: Path, change: Callable[[Any], Any], named: str
) -> None:
    assert named in " ".join(wrong(recompute_from_scores(edit(copy, change))))


@pytest.mark.parametrize("name", [SCORES, COMMITMENTS, LOG, ANSWERS])
def test_a_file_with_one_flipped_bit_is_named_before_anything_is_computed(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(bytes(data))
    found = recompute_from_scores(copy)
    assert wrong(found) == [f"{name}: digest"]
    assert all(row.what.endswith(": digest") for row in found.rows)
    assert any("nothing was computed" in text for text in found.taken_over)


def test_forged_scores_with_digests_that_fit_change_what_follows(copy: Path) -> None:
    def quiet(arrays: dict[str, np.ndarray]) -> None:
        group = arrays["model0.group"]
        rng = np.random.default_rng(0)
        for name in arrays:
            if name.endswith(".after"):
                arrays[name] = rng.permutation(arrays[name][group == Group.HOLDOUT].repeat(2))

    found = recompute_from_scores(forge(copy, quiet))
    assert "p: word" in wrong(found)
    assert next(row for row in found.rows if row.what == "p: word").recomputed != "OUTSIDE BOUND"
    assert not [what for what in wrong(found) if what.endswith(": digest")]


def test_one_forged_score_is_found(copy: Path) -> None:
    def one(arrays: dict[str, np.ndarray]) -> None:
        name = next(name for name in arrays if name.endswith(".after"))
        arrays[name] = arrays[name].copy()
        arrays[name][arrays[name].argmin()] = arrays[name].max() + 1

    assert any(": AUC" in what for what in wrong(recompute_from_scores(forge(copy, one))))


def test_scores_that_fit_no_audit_are_refused(copy: Path) -> None:
    def short(arrays: dict[str, np.ndarray]) -> None:
        arrays["model0.sets"] = arrays["model0.sets"][:3]

    with pytest.raises(InvalidInput, match=r"scores\.npz"):
        recompute_from_scores(forge(copy, short))


def test_a_result_without_evidence_says_so(copy: Path) -> None:
    def old(document: Any) -> None:
        for key in ("evidence", "log_head"):
            del document[key]

    edit(copy, old)
    with pytest.raises(InvalidInput, match="lists no stored scores.*run the audit again"):
        recompute_from_scores(copy)
    with pytest.raises(InvalidInput, match="lists no stored scores"):
        rerun(copy, level="answers")


def test_an_edition_without_scores_says_so(copy: Path) -> None:
    (copy / SCORES).unlink()
    with pytest.raises(InvalidInput, match="is not here"):
        recompute_from_scores(copy)


def test_a_path_that_a_document_names_is_never_opened(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x", encoding="utf-8")

    def elsewhere(document: Any) -> None:
        document["evidence"].append({**document["evidence"][0], "path": "../secret"})

    found = recompute_from_scores(edit(copy, elsewhere))
    assert "../secret: not a file of this release" in found.taken_over
    assert not [row for row in found.rows if "secret" in row.what]


def test_attacks_run_again_on_recorded_answers(copy: Path) -> None:
    found = rerun(copy, level="answers")
    assert (found.agrees, found.level) == (True, "answers")
    assert any(row.what == "p: word" for row in found.rows)
    (copy / ANSWERS).write_bytes(b"x")
    assert wrong(rerun(copy, level="answers")) == [f"{ANSWERS}: digest"]


@pytest.mark.slow
def test_a_number_outside_its_interval_is_found_at_every_level(copy: Path) -> None:
    def lower(document: Any) -> None:
        estimate = document["subjects"][0]["endpoints"][0]["estimate"]
        estimate["ci"]["upper"] = estimate["ci"]["lower"] = estimate["value"] = estimate["value"] / 2

    edit(copy, lower)
    for level in ("scores", "answers"):
        assert any("P1" in what for what in wrong(rerun(copy, level=level)))  # type: ignore[arg-type]


def test_from_data_needs_a_plan(made: Path) -> None:
    with pytest.raises(InvalidInput, match="give the same command"):
        rerun(made, level="data")


@pytest.mark.slow
def test_membership_is_recomputed_though_no_deletion_is_judged(tmp_path: Path) -> None:
    folder = audit(predictions(tmp_path / "m.npz", member=True), tmp_path / "out")
    for level in ("scores", "answers"):
        found = rerun(folder, level=level)  # type: ignore[arg-type]
        assert found.agrees
        assert next(row for row in found.rows if row.what == "m: word").recomputed == "NOT ASSESSED"
    edited = edit(folder, lambda d: d["subjects"][0]["findings"][0]["auc"].update(value=0.5))
    assert any(": AUC" in what for what in wrong(recompute_from_scores(edited)))


# the controller's key, and what must not be in the files


def test_no_file_names_a_record_or_holds_the_key(made: Path) -> None:
    key = (made / KEY_NAME).read_text(encoding="ascii").strip()
    assert (made / KEY_NAME).stat().st_mode & 0o777 == 0o600
    ids = FIRST_ID + np.arange(N)
    needles = [str(FIRST_ID).encode(), str(FIRST_ID + N - 1).encode(), key.encode(), bytes.fromhex(key)]
    needles += [bytes(ids[:1].astype(order).data) for order in ("<i8", ">i8", "<f8")]
    needles += ["".join(f"{c}\0\0\0" for c in str(FIRST_ID)).encode()]
    for path in sorted((made / "evidence").iterdir()):
        parts = [path.read_bytes()]
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as file:
                parts += [file.read(name) for name in file.namelist()]
        for part in parts:
            assert not [needle for needle in needles if needle in part], path.name
    secret = read_key(made / KEY_NAME)
    with SideArrays(made / ANSWERS) as answers:
        assert answers.get("pseudonyms", kind="U").tolist() == [pseudonym(secret, str(i)) for i in ids]


def test_record_sets_are_keyed_roots(made: Path) -> None:
    result, key = read_result(made), read_key(made / KEY_NAME)
    with np.load(made.parent / "p.npz") as file:
        ids, labels, forget = file["ids"], file["labels"], file["role"] == "forget"
    contents = [int(label).to_bytes(8, "big", signed=True) for label in labels[forget]]
    own = next(one for one in result.data.sets if one.role == "forget")
    assert (own.keyed, own.digest) == (True, commit_records(key, ids[forget], contents).root)
    assert {one.keyed for one in result.data.sets} == {True}
    assert result.data.digest != run_scores(made.parent / "p.npz", alpha=0.1).data.digest, "keyed as well"


def test_a_key_is_made_once_used_again_or_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MNEMOSCOPE_KEY_FILE", raising=False)
    first = controller_key(tmp_path / "a")
    assert controller_key(tmp_path / "a") == first == read_key(tmp_path / "a" / KEY_NAME)
    assert controller_key(tmp_path / "b") != first
    own = tmp_path / "own.key"
    own.write_text("ab" * 32 + "\n", encoding="ascii")
    assert controller_key(tmp_path / "a", own) == b"\xab" * 32
    monkeypatch.setenv("MNEMOSCOPE_KEY_FILE", str(own))
    assert controller_key(tmp_path / "c") == b"\xab" * 32
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("text", ["", "xyz", "ab" * 8, "ab" * 5000])
def test_what_is_no_key_is_refused_before_any_work(tmp_path: Path, text: str) -> None:
    bad = tmp_path / "bad.key"
    bad.write_text(text, encoding="ascii")
    with pytest.raises(InvalidInput, match="hex digits"):
        run_scores(tmp_path / "none.npz", out=tmp_path / "out", key=bad)
    with pytest.raises(InvalidInput, match="cannot be read"):
        run_scores(tmp_path / "none.npz", out=tmp_path / "out", key=tmp_path / "missing")
    assert not (tmp_path / "out").exists()


def test_without_an_output_nothing_is_written_and_nothing_is_keyed(made: Path, tmp_path: Path) -> None:
    result = run_scores(made.parent / "p.npz", alpha=0.1)
    assert (result.evidence, result.log_head) == ((), "")
    assert not any(one.keyed for one in result.data.sets)
    assert list(tmp_path.iterdir()) == []


# the command


def call(*args: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, ["rerun", *map(str, args)])
    return done.exit_code, done.output


def test_the_exit_code_says_whether_it_agrees(made: Path, copy: Path) -> None:
    code, text = call(made)
    assert code == 0
    assert "AGREES" in text
    edit(copy, lambda d: d["subjects"][0]["verdict"].update(word="WITHIN BOUND"))
    code, text = call(copy)
    assert code == DISAGREES == 22
    assert "p: word" in text
    assert "WITHIN BOUND" in text
    code, text = call(copy, "--json")
    assert code == DISAGREES
    assert json.loads(text)["agrees"] is False
    assert call(copy / "nowhere")[0] == 2
    assert call(made, "--from", "data")[0] == 2


def test_the_screen_is_one_screen_and_shows_no_control_characters() -> None:
    from mnemoscope.recomputation import RecomputedRow

    rows = tuple(RecomputedRow(f"what\x1b[2J {i}", "x" * 500, "y", False) for i in range(100))
    lines = rerun_lines(Recomputation(False, rows, ("a\x07b",)))
    assert len(lines) < 60
    assert max(map(len, lines)) <= 200
    assert not [line for line in lines if "\x1b" in line or "\x07" in line]


# a plan from what an audit wrote down

PLAN = """
name = "again"
seed = 3
[design]
models = 6
audited = 120
background = 30
population = 60
calibration = 0
test = 100
counts = [2, 2, 2]
{more}
[recipe.overrides]
architecture = "mlp:32"
epochs = 4
batch_size = 32
[[subjects]]
method = "noop"
[[subjects]]
method = "finetune"
settings = {{ epochs = 2 }}
[attacks]
run = ["lira", "modified_entropy"]
measures = []
[defences]
answers = []
[policy]
alpha = 0.1
control_permutations = 20
power_runs = 10
[runtime]
device = "cpu"
threads = 1
"""


def write_plan(folder: Path, text: str) -> str:
    plan = parse_plan(text, folder=folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps({"plan": plan.as_dict()}), encoding="utf-8")
    return plan.digest


@pytest.mark.parametrize("more", ["", "requests = 2", "validation = 20"])
def test_a_plan_is_itself_again(tmp_path: Path, more: str) -> None:
    digest = write_plan(tmp_path, PLAN.format(more=more))
    assert plan_again(tmp_path, digest).digest == digest
    with pytest.raises(InvalidInput, match="the result was made from"):
        plan_again(tmp_path, "sha256:" + "0" * 64)


def test_a_plan_that_names_files_of_the_users_own_asks_for_them(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Mine: ...\n", encoding="utf-8")
    text = PLAN.format(more="").replace('"lira", ', '"lira", "mine.py:Mine", ')
    digest = write_plan(tmp_path, text)
    with pytest.raises(InvalidInput, match="--plan"):
        plan_again(tmp_path, digest)
    (tmp_path / "plan.toml").write_text(text, encoding="utf-8")
    assert plan_again(tmp_path, digest, plan=tmp_path / "plan.toml").digest == digest


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"plan": 1}', '{"plan": {"recipe": {"name": "no"}}}', "[" * 9999])
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match="plan"):
        plan_again(tmp_path, "sha256:" + "0" * 64)


@pytest.mark.slow
def test_a_procedure_is_recomputed_at_every_level(tmp_path: Path) -> None:
    from mnemoscope.pipeline import run_plan

    plan = parse_plan(PLAN.format(more=""))
    out, store = tmp_path / "out", tmp_path / "store"
    result = run_plan(plan, store=store, out=out, keep_answers=True)
    steps, head = read_log((out / LOG).read_bytes())
    assert head == result.log_head
    names = [step.step for step in steps]
    assert names[0] == "plan committed"
    assert names.index("first score") < names.index("subject scored") < names.index("result")
    for level in ("scores", "answers", "data"):
        found = rerun(out, level=level, device="cpu", store=tmp_path / "fresh")  # type: ignore[arg-type]
        assert found.agrees, wrong(found)
        words = [row.recomputed for row in found.rows if row.what.endswith(": word")]
        assert words == [subject.verdict.word for subject in result.subjects]
    with pytest.raises(InvalidInput, match="holds other work"):
        rerun(out, level="data", store=store)
    edit(out, lambda d: d["subjects"][0]["verdict"].update(word="NOT ASSESSED"))
    assert any(": word" in what for what in wrong(rerun(out)))

    # A second run in the folder has the same key, and leaves no answers that it does not name.
    assert (out / ANSWERS).exists()
    second = run_plan(plan, store=store, out=out)
    assert not (out / ANSWERS).exists()
    assert ANSWERS not in {file.path for file in second.evidence}
    assert [one.digest for one in second.data.sets] == [one.digest for one in result.data.sets]
    assert recompute_from_scores(out).agrees
    with io.BytesIO((out / SCORES).read_bytes()) as data, np.load(data, allow_pickle=False) as file:
        assert json.loads(str(file["index"]))["mode"] == "procedure"


@pytest.mark.slow
def test_requests_one_after_another_have_scores_of_their_own(tmp_path: Path) -> None:
    from mnemoscope.pipeline import run_plan

    text = PLAN.format(more="requests = 2").replace("models = 6", "models = 12").replace("[2, 2, 2]", "[3, 6, 3]")
    plan = parse_plan(text)
    result = run_plan(replace(plan, subjects=plan.subjects[:1]), store=tmp_path / "store", out=tmp_path / "out")
    assert len(result.subjects) == 2
    found = recompute_from_scores(tmp_path / "out")
    assert found.agrees, wrong(found)
    with SideArrays(tmp_path / "out" / SCORES) as arrays:
        first, second = (arrays.get(f"fleet{i}.role", kind="i", ndim=2) for i in (0, 1))
        assert (first != second).any()
