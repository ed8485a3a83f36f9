"""Single records stand in the restricted edition alone, and there under keyed pseudonyms."""

from dataclasses import replace

import pytest

from mnemoscope.audit.records.pseudonyms import pseudonym
from mnemoscope.audit.verdict.individual_rows import Individual
from mnemoscope.audit.verdict.named import with_pseudonyms
from mnemoscope.reports.editions import for_edition
from mnemoscope.reports.schema import from_json, to_json

KEY = bytes(range(32))


@pytest.fixture
def made(factory):
    one = factory.subject("noop")
    listed = (
        Individual("", "digits/0017", "8", 0.97, 0.93, 0.51, 2e-4),
        Individual("", "digits/0042", "1", None, 0.55, None, None),
    )
    return factory.result([replace(one, individuals=listed)])


def test_names_are_those_of_the_key(made):
    subject = with_pseudonyms(made, KEY).subjects[0]
    assert [x.pseudonym for x in subject.individuals] == [pseudonym(KEY, k) for k in ("digits/0017", "digits/0042")]
    assert [x.pseudonym for x in subject.exposed] == [pseudonym(KEY, "digits/0017")]
    other = with_pseudonyms(made, bytes(32)).subjects[0]
    assert not {x.pseudonym for x in other.individuals} & {x.pseudonym for x in subject.individuals}


@pytest.mark.parametrize("edition", ["public", "internal", "restricted"])
def test_no_edition_holds_a_key_and_one_alone_holds_pseudonyms(made, edition):
    text = to_json(for_edition(with_pseudonyms(made, KEY), edition)).decode()
    name = pseudonym(KEY, "digits/0017")
    assert "digits/0017" not in text
    assert "digits/0042" not in text
    assert (name in text) == (edition == "restricted")


def test_what_is_written_is_read_back(made):
    restricted = for_edition(with_pseudonyms(made, KEY), "restricted")
    assert from_json(to_json(restricted)) == restricted
    first = restricted.subjects[0].individuals[0]
    assert (first.key, first.label, first.before, first.p_value) == ("", "8", 0.97, 2e-4)
