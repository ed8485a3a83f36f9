"""What three new users do, word for word as docs/walkthroughs.md shows it: commands, exit codes, what they leave."""

import contextlib
import re
import shlex
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from mnemoscope.cli import app
from mnemoscope.reports.schema import read_result, result_digest

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "docs/walkthroughs.md"
PART = re.compile(r"<!-- (?P<what>run|file): (?P<how>[^>]+?) -->\n```\w+\n(?P<code>.*?)```", re.DOTALL)
EXIT = re.compile(r"#\s*exit code (\d+)\s*$")


@dataclass(frozen=True)
class Step:
    """One documented command with the exit code that the document promises."""

    how: str
    line: str
    code: int

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line, comments=True)


def _parts(what: str) -> list[tuple[str, str]]:
    text = DOCUMENT.read_text(encoding="utf-8")
    return [(match["how"], match["code"]) for match in PART.finditer(text) if match["what"] == what]


def _steps() -> list[Step]:
    steps = []
    for how, code in _parts("run"):
        if "python" in how:
            steps.append(Step(how, f"python {how.split()[-1]}", 0))
            continue
        for line in filter(str.strip, code.replace("\\\n", " ").splitlines()):
            promised = EXIT.search(line)
            steps.append(Step(how, line, int(promised[1]) if promised else 0))
    return sorted(steps, key=lambda step: ORDER.index(step.how.split(" flip")[0]))


ORDER = (
    "engineer, before", "engineer", "engineer, after", "officer, before", "officer", "auditor, before", "auditor",
    "auditor python", "auditor, after",
)  # fmt: skip
STEPS = _steps()


@dataclass
class Walked:
    """Where it was walked, and what each command answered."""

    folder: Path
    answers: dict[str, tuple[int, str]]

    def said(self, start: str) -> str:
        """What the command that starts so printed."""
        (found,) = [text for line, (_, text) in self.answers.items() if line.startswith(start)]
        return found


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Walked:
    """All commands in the order of the document, in one empty folder; a code that is not promised ends nothing here."""
    folder, answers = tmp_path_factory.mktemp("walk"), {}
    programs = {how.split()[-1]: code for how, code in _parts("run") if "python" in how}
    with contextlib.chdir(folder):
        for name, content in _parts("file"):
            Path(name).write_text(content, encoding="utf-8")
        second = Path("plan.toml").read_text(encoding="utf-8")
        second = second.replace('method = "finetune"', 'method = "retrain"').replace("settings = { epochs = 5 }\n", "")
        Path("plan-2.toml").write_text(second.replace("release 7", "release 8"), encoding="utf-8")
        for step in STEPS:
            if step.words[0] == "python":
                exec(compile(programs[step.words[1]], step.words[1], "exec"), {})
                answers[step.line] = (0, "")
                continue
            done = CliRunner().invoke(app, step.words[1:], env={"COLUMNS": "200"})
            answers[step.line] = (done.exit_code, done.output)
    return Walked(folder, answers)


def test_every_part_of_the_document_has_its_place() -> None:
    assert {how.split(" flip")[0] for how, _ in _parts("run")} == set(ORDER)
    assert {name for name, _ in _parts("file")} == {"policy.toml", "plan.toml", "declarations.toml", "opinion.toml"}
    assert len(STEPS) >= 18
    shown = re.findall(r"```shell\n", DOCUMENT.read_text(encoding="utf-8"))
    assert len(shown) == len(ORDER) - 1, "a block of commands that nothing runs"


def test_pictures_are_there_and_small() -> None:
    pictures = re.findall(r"!\[[^\]]{20,}\]\(([^)]+\.png)\)", DOCUMENT.read_text(encoding="utf-8"))
    assert len(pictures) == 4, "each with a description of what it shows"
    for name in pictures:
        assert 10_000 < (DOCUMENT.parent / name).stat().st_size < 150_000


@pytest.mark.parametrize("step", STEPS, ids=[step.line.split("#")[0].strip() for step in STEPS])
def test_a_documented_command_ends_as_promised(walked: Walked, step: Step) -> None:
    code, text = walked.answers[step.line]
    assert code == step.code, text[-3000:]
    assert "Traceback" not in text


def test_the_engineer_sees_what_blocks_and_where_it_stands(walked: Walked) -> None:
    said = walked.said("mnemoscope gate audits/release-7")
    assert said.startswith("BLOCKED: OUTSIDE BOUND")
    assert re.search(r"worst: P[1-4] ", said)
    assert re.search(r"bound: (at most|within) ", said)
    digest = result_digest((walked.folder / "audits/release-7/result.json").read_bytes())
    assert digest in said
    policy = next(line for line in walked.said("mnemoscope policy check").splitlines() if line.startswith("policy "))
    assert policy.split()[1] in said
    passed = walked.said("mnemoscope gate audits/release-8")
    assert passed.startswith("PASSED")


def test_the_pipeline_gets_a_case_for_everything_and_a_page(walked: Walked) -> None:
    for name, failures in (("gate-7.xml", True), ("gate-8.xml", False)):
        tree = ElementTree.parse(walked.folder / name).getroot()
        assert {"verdict", "bounds"} <= {case.get("name") for case in tree.findall(".//testcase")}
        assert bool(tree.findall(".//failure")) is failures
    summary = (walked.folder / "summary.md").read_text(encoding="utf-8")
    first, second = summary.index("BLOCKED: OUTSIDE BOUND"), summary.index("PASSED")
    assert first < second, "appended, as a job's page is"


def test_the_words_and_the_counts_of_both_releases(walked: Walked) -> None:
    seven, eight = (read_result(walked.folder / f"audits/release-{i}") for i in (7, 8))
    assert [s.verdict.word for s in (*seven.subjects, *eight.subjects)] == ["OUTSIDE BOUND", "WITHIN BOUND"]
    assert seven.plan.committed_before_scores
    assert eight.declared is not None
    assert eight.declared.next_test_due == "2027-02-21"
    assert "reused" in str(eight.costs[0])
    assert any(cost.reused >= 36 for cost in eight.costs), "fleets that both share are trained once"
    difference = walked.said("mnemoscope diff")
    assert "deletion job" in difference


def test_both_audits_are_on_one_page_and_are_not_joined(walked: Walked) -> None:
    page = (walked.folder / "audits/index.html").read_text(encoding="utf-8")
    assert "release 7" in page
    assert "release 8" in page
    assert "2027-02-21" in page
    assert "none before it was made with the same plan and policy" in page
    assert str(walked.folder) not in page


def test_the_officer_reads_two_pages_and_what_was_declared(walked: Walked) -> None:
    pypdf = pytest.importorskip("pypdf")
    reader = pypdf.PdfReader(walked.folder / "for-the-officer/summary.pdf")
    text = " ".join(page.extract_text() for page in reader.pages)
    assert len(reader.pages) <= 2
    for shown in ("WITHIN BOUND", "2026-11-19", "2027-02-21", "B. Example"):
        assert shown in text, shown
    for never in ("compliant", "anonymous", "certified", "GDPR-ready"):
        assert never not in text.lower()
    page = (walked.folder / "for-the-officer/report.html").read_text(encoding="utf-8")
    assert "overwritten within 30 days" in page
    assert "R-2026-0114" in page


def test_the_public_edition_names_nobody_and_no_place(walked: Walked) -> None:
    folder = walked.folder / "for-everybody"
    for path in folder.iterdir():
        text = path.read_bytes().decode("utf-8", "replace")
        for hidden in ("B. Example", "A. Example", "R-2026-0114", str(walked.folder), str(Path.home())):
            assert hidden not in text, f"{hidden} in {path.name}"
    assert read_result(folder).edition == "public"


def test_the_auditor_sees_every_check_hold_and_both_signatures(walked: Walked) -> None:
    said = walked.said("mnemoscope verify evidence.zip")
    assert "Everything that was checked holds" in said
    assert "FAILS" not in said
    again = walked.said("mnemoscope rerun evidence.zip")
    assert "AGREES" in again
    assert "WITHIN BOUND" in again
    with zipfile.ZipFile(walked.folder / "evidence.zip") as bundle:
        names = bundle.namelist()
    assert len([name for name in names if name.endswith(".dsse.json")]) >= 3, "audit, test result, opinion"


def test_a_flipped_byte_is_found_and_its_file_is_named(walked: Walked) -> None:
    said = walked.said("mnemoscope verify altered")
    (fault,) = [line for line in said.splitlines() if line.strip().startswith("FAILS  digests")]
    assert "result.json" in fault
    assert "Everything that was checked holds" not in said
    whole = (walked.folder / "evidence.zip").read_bytes()
    broken = walked.folder / "flipped.zip"
    for place in (len(whole) // 3, len(whole) - 30):
        broken.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        done = CliRunner().invoke(app, ["verify", str(broken), "--no-from-scores"])
        assert done.exit_code >= 10, place
        assert "FAILS" in done.output
