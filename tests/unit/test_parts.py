from pathlib import Path

import pytest
from inferno.models.parts import first_part, parts_of, place, without_part


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m-00002-of-00003.gguf", (2, 3)),
        ("m-00001-of-00001.gguf", (1, 1)),
        ("m.gguf", (1, 1)),
        ("m-00004-of-00003.gguf", (1, 1)),
        ("m-00000-of-00003.gguf", (1, 1)),
        ("m-00001-of-01025.gguf", (1, 1)),
        ("m-2-of-3.gguf", (1, 1)),
        ("m-00002-of-00003.bin", (1, 1)),
    ],
)
def test_place(name: str, expected: tuple[int, int]) -> None:
    assert place(Path(name)) == expected


def test_the_parts_are_the_same_whichever_is_asked() -> None:
    parts = [Path(f"d/m-0000{number}-of-00003.gguf") for number in (1, 2, 3)]
    assert [parts_of(part) for part in parts] == [parts] * 3
    assert first_part(parts[2]) == parts[0]


def test_a_file_alone() -> None:
    assert parts_of(Path("d/m.gguf")) == [Path("d/m.gguf")]
    assert (without_part("m"), without_part("m-00001-of-00003")) == ("m", "m")
    assert without_part("m-00004-of-00003") == "m-00004-of-00003"
