"""The papers: complete entries, and known ones for every verb that names some."""

import re

import pytest

from hoarfrost.runs.references import BY_VERB, REFERENCES, Reference, references_of


@pytest.mark.parametrize("reference", REFERENCES.values(), ids=lambda r: r.key)
def test_entries_are_complete(reference: Reference) -> None:
    assert reference.text.startswith(reference.authors.split(",")[0])
    assert f"({reference.year})" in reference.text
    assert reference.bibtex.count("{") == reference.bibtex.count("}")
    assert reference.bibtex.startswith(f"@article{{{reference.key},\n")
    assert not reference.doi or re.fullmatch(r"10\.\d{4,5}/\S+", reference.doi)


@pytest.mark.parametrize("verb", BY_VERB)
def test_verbs_name_known_papers(verb: str) -> None:
    assert {reference.key for reference in references_of(verb)} == set(BY_VERB[verb])
