"""Short fuzzing of readers: only errors of our own, no hang, nothing written; `bench fuzzing` is longer."""

import pytest

pytest.importorskip("hypothesis", reason="dev.py installs it; the tests of a plain installation need none")

from fuzz import SMALL, fuzz, peak_bytes
from readers import READERS

COUNT = 40  # inputs for each reader


@pytest.mark.filterwarnings("ignore")  # Pillow warns about damaged EXIF
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused_by_an_error_of_our_own(name, tmp_path):
    counts = fuzz(name, COUNT, tmp_path / "fuzz")
    assert counts.inputs >= COUNT
    assert counts.refused < counts.inputs or name == "picture"  # some inputs go deep into the reader


@pytest.mark.parametrize("name", READERS)
def test_reading_takes_less_than_twice_the_file_beside_a_constant(name, tmp_path):
    reader = READERS[name]
    reader.prepare(tmp_path)
    peak_bytes(reader, reader.seed(), tmp_path)  # imports what is imported on first use
    content = reader.seed() + b" " * 2**20
    assert peak_bytes(reader, content, tmp_path) < 2 * len(content) + SMALL
