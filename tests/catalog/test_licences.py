import pytest

from freehold.catalog import licences
from freehold.core.errors import Code, UserError
from freehold.core.model import Licence


@pytest.mark.parametrize(
    ("said", "spdx", "commercial"),
    [
        ("apache-2.0", "Apache-2.0", True),
        ("MIT", "MIT", True),
        ("llama3.1", "LicenseRef-Llama-3.1", None),
        ("gemma", "LicenseRef-Gemma", None),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0", False),
        ("Our Own Licence", "Our Own Licence", None),
        ("", "NOASSERTION", None),
        (None, "NOASSERTION", None),
    ],
)
def test_a_licence_is_known_by_any_of_its_names(
    said: str | None, spdx: str, commercial: bool | None
) -> None:
    assert licences.named(said) == Licence(spdx, commercial)


def test_a_contradiction_is_unknown_and_agreement_in_other_words_is_none() -> None:
    assert licences.agreed(["Apache-2.0", "apache-2.0", ""]) == Licence("Apache-2.0", True)
    assert licences.agreed(["LicenseRef-Llama-3.1", "llama3.1"]).commercial_use is None
    assert licences.agreed(["Apache-2.0", "mit"]).commercial_use is None
    assert licences.agreed([]) == Licence("NOASSERTION", None)


def test_the_gate_opens_only_with_a_reason_and_keeps_it() -> None:
    licence = licences.named("cc-by-nc-4.0")
    with pytest.raises(UserError) as refused:
        licences.gate("m", licence, None)
    assert refused.value.code is Code.LICENCE_NOT_ACCEPTED
    assert "CC-BY-NC-4.0" in refused.value.message

    assert licences.gate("m", licence, " a reason ").waiver == "a reason"
    assert licences.gate("m", licences.named("mit"), "a reason").waiver is None
