"""No template, sentence, data file or document may claim what no attack can show (section 4.5 of the reference)."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import mnemoscope.reports as package

ROOT = Path(__file__).parents[2]
REPORTS = Path(package.__file__).parent

CLAIMS = re.compile(
    r"\b(complian(t|ce)|certif(y|ies|ied|ication)|anonym(ous|ity|i[sz]ed|i[sz]ation)|gdpr[- ]?ready"
    r"|approved|endors(ed|ement)|guarante\w*|zero[- ]risk|risk[- ]free|no risk|privacy[- ]safe"
    r"|legal advice|tamper[- ]?proof|court[- ]?proof"
    r"|(passes|satisfies|fulfil+s|meets) (the )?(gdpr|art(icle|\.)|law|duty|regulation)"
    r"|(completely|fully|permanently|irreversibly|provably|truly|entirely)"
    r"[- ](deleted?|erased?|forgotten|forgets|removed?|gone)"
    r"|(deleted|erased|forgotten|removed|gone) (completely|fully|permanently|entirely|for good|forever)"
    r"|epsilon (was|is) measured|measured epsilon)\b",
    re.IGNORECASE,
)
"""Claims that stand nowhere, not in documents either."""

STRICT = re.compile(
    CLAIMS.pattern[:-3] + r"|deleted|erased|safe|safely|proves?)\b",
    re.IGNORECASE,
)
"""In what a report prints, these words are claims as well."""

ALLOWED = {
    "not legal advice": "says what the report is not",
    "claim of certified removal": "names somebody's claim, which a test can refute",
    "of differential privacy or certified removal": "the same",
    "refutes certified removal": "the same",
    "no statement on anonymity is made": "says what is not stated",
    "evaluation of privacy guarantees": "the subject of NIST SP 800-226",
    "approved by": "the role of a person, as declared",
    "nothing was deleted": "a membership audit, which judges no deletion",
    "records that were to be deleted": "what was asked for, not what was reached",
}
"""The only contexts in which a word of the list may stand, each with its reason."""


def without_allowed(text: str) -> str:
    plain = re.sub(r"\s+", " ", text)
    for context in ALLOWED:
        plain = re.sub(re.escape(context), " ", plain, flags=re.IGNORECASE)
    return plain


@cache
def printed() -> tuple[tuple[str, str], ...]:
    """Everything that a report can print: templates, data files, and strings of the package except docstrings."""
    return tuple(_printed())


def _printed() -> Iterator[tuple[str, str]]:
    for path in sorted(REPORTS.rglob("*")):
        if path.suffix in (".j2", ".json", ".js", ".css", ".md") and path.is_file():
            yield str(path.relative_to(REPORTS)), path.read_text(encoding="utf-8")
    for path in sorted(REPORTS.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        said = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
                yield str(path.relative_to(REPORTS)), node.value


def documents() -> list[Path]:
    return [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def test_nothing_printed_claims_what_no_attack_can_show():
    texts = printed()
    assert len(texts) > 500
    hits = [(name, m[0], text[:80]) for name, text in texts for m in STRICT.finditer(without_allowed(text))]
    assert hits == []


@pytest.mark.parametrize("path", documents(), ids=lambda p: p.name)
def test_no_document_claims_it_either(path):
    hits = [m[0] for m in CLAIMS.finditer(without_allowed(path.read_text(encoding="utf-8")))]
    assert hits == []


def test_sentences_of_the_verdicts_and_declarations_claim_nothing():
    from mnemoscope.audit.verdict.declared_file import declarations_template
    from mnemoscope.audit.verdict.rules import SENTENCES

    for text in (*SENTENCES.values(), declarations_template()):
        assert [m[0] for m in CLAIMS.finditer(without_allowed(text))] == []


@pytest.mark.parametrize(
    "claim",
    ["This model is GDPR compliant.", "The data was deleted completely.", "an anonymous model", "certified by us",
     "It passes Article 17.", "zero risk", "This is legal advice.", "provably forgotten", "measured epsilon 0.3"],
)  # fmt: skip
def test_the_lint_finds_claims(claim):
    assert CLAIMS.search(without_allowed(claim))
    assert STRICT.search(without_allowed(claim))


def test_every_allowed_context_is_used_and_holds_a_word_of_the_list():
    everything = " ".join(re.sub(r"\s+", " ", text) for _, text in printed()).lower()
    everything += " ".join(re.sub(r"\s+", " ", p.read_text(encoding="utf-8")).lower() for p in documents())
    from mnemoscope.audit.verdict.declared_file import declarations_template

    everything += declarations_template().lower()
    for context in ALLOWED:
        assert STRICT.search(context), context
        assert context.lower() in everything, context
