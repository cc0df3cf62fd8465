"""Options become settings, or one line that says which option is wrong."""

import pytest

from hoarfrost.errors import InputError
from hoarfrost.runs.presets import ab_initio_settings


def test_options_that_are_not_given_keep_the_presets_value() -> None:
    careful = ab_initio_settings("careful", diameter=None, max_resolution=6.0, seed=7)
    assert (careful.preset, careful.diameter, careful.max_resolution, careful.seed) == ("careful", None, 6.0, 7)
    assert careful.starts > ab_initio_settings("fast").starts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diameter": -5.0}, r"^--diameter -5\.0: .*greater than 0"),
        ({"max_resolution": 0.0}, r"^--max-resolution 0\.0: "),
        ({"symmetry": "Q7"}, "Q7"),
    ],
)
def test_values_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        ab_initio_settings("default", **options)
    assert "\n" not in str(refusal.value)
