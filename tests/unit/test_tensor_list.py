from pathlib import Path

import pytest
from inferno import _core, errors

from tests import gguf_files as gguf


def test_all_parts_have_their_tensors(tmp_path: Path) -> None:
    whole = [(tensor.name, "f32", list(tensor.dims), len(tensor.data)) for tensor in gguf.tiny_llama().tensors]
    parts = gguf.write_split(tmp_path, "big", 3)
    assert _core.list_tensors(str(parts[0])) == whole
    parts[2].unlink()
    with pytest.raises(errors.InvalidRequest):
        _core.list_tensors(str(parts[0]))


def test_names_may_be_of_any_bytes(tmp_path: Path) -> None:
    file = gguf.minimal()
    file.tensors.append(gguf.Tensor(b"odd\xff", (1,), bytes(4)))
    (tmp_path / "m.gguf").write_bytes(file.to_bytes())
    assert _core.list_tensors(str(tmp_path / "m.gguf"))[-1] == ("odd\ufffd", "f32", [1], 4)
