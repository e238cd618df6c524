import os
from pathlib import Path

import pytest
from inferno import _core, errors
from inferno.models import registry as registry_module
from inferno.models.registry import Registry, is_valid_id

from tests import gguf_files as gguf

MODEL = gguf.tiny_llama(name="Tiny Llama").to_bytes()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    path.mkdir()
    return path


def _put(path: Path, data: bytes = MODEL) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _ids(registry: Registry) -> list[str]:
    return [entry.id for entry in registry.entries()]


@pytest.mark.acceptance("M2")
def test_ids_are_file_names(models: Path) -> None:
    for name in ("b.gguf", "llama-2-7b.Q4_K.gguf", "org/a.gguf", "notes.txt", "org/team/c.gguf"):
        _put(models / name)
    assert _ids(Registry(models)) == ["b", "llama-2-7b.Q4_K", "org/a", "org/team/c"]


@pytest.mark.acceptance("M2", "O4")
def test_an_entry(models: Path) -> None:
    path = _put(models / "org" / "a.gguf")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    entry = Registry(models).get("org/a")
    assert (entry.id, entry.name, entry.path) == ("org/a", "Tiny Llama", path)
    assert (entry.size_bytes, entry.created) == (len(MODEL), 1_700_000_000)
    assert (entry.info.architecture, entry.info.context_train) == ("llama", 512)


@pytest.mark.acceptance("M2")
def test_a_model_without_a_name(models: Path) -> None:
    _put(models / "my-model_7B.gguf", gguf.tiny_llama(name="").to_bytes())
    assert Registry(models).get("my-model_7B").name == "My Model 7B"


def test_no_directory_is_no_models(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "absent")
    assert registry.entries() == []
    with pytest.raises(errors.ModelNotFound):
        registry.get("a")


def test_a_new_file_is_there_at_once_and_a_deleted_one_gone(models: Path) -> None:
    registry = Registry(models)
    assert _ids(registry) == []
    path = _put(models / "org" / "a.gguf")
    assert registry.get("org/a").path == path
    path.unlink()
    assert _ids(registry) == []


def test_a_header_is_read_once(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def inspect(path: str) -> dict[str, object]:
        read.append(path)
        return _core.inspect_model(path)

    class Core:
        inspect_model = staticmethod(inspect)

    monkeypatch.setattr(registry_module, "_core", Core)
    path = _put(models / "a.gguf")
    registry = Registry(models, {"b": "a"})
    for _ in range(3):
        assert _ids(registry) == ["a", "b"]
    assert len(read) == 1
    _put(path, gguf.tiny_llama(name="Another").to_bytes())
    assert registry.get("b").name == "Another"
    assert len(read) == 2


@pytest.mark.acceptance("M6")
def test_an_unknown_model_names_those_there_are(models: Path) -> None:
    _put(models / "a.gguf")
    _put(models / "broken.gguf", b"GGUF")
    registry = Registry(models, {"also": "a", "dangling": "gone.gguf"})
    with pytest.raises(errors.ModelNotFound) as caught:
        registry.get("x")
    assert caught.value.message == "Model 'x' not found"
    assert caught.value.details["available_models"] == ["a", "also"]


@pytest.mark.acceptance("X1")
def test_broken_files_are_not_listed_but_explained(models: Path) -> None:
    _put(models / "a.gguf")
    _put(models / "broken.gguf", gguf.malformed()["data_too_short"])
    registry = Registry(models, {"dangling": "gone.gguf", "loop": "pool", "pool": "loop"})
    assert _ids(registry) == ["a"]
    with pytest.raises(errors.InvalidRequest) as caught:
        registry.get("broken")
    assert caught.value.field == "model"
    assert str(models) not in caught.value.message
    assert set(registry.problems()) == {"broken", "dangling", "loop", "pool"}
    assert not any(str(models) in problem for problem in registry.problems().values())


@pytest.mark.acceptance("M7")
@pytest.mark.parametrize(
    "model_id",
    ["..", "../a", "org/../a", "/etc/passwd", "/a", "a/", "//a", "", ".hidden", "a\0", "a\n", "a b", "é", "x" * 129,
     "a/b/c/d", "%2e%2e/a", "a\\b", "\udcff", "~root", "-a", "org//a", "./a"],
)  # fmt: skip
def test_ids_that_lead_astray(models: Path, model_id: str) -> None:
    _put(models / "a.gguf")
    _put(models.parent / "a.gguf")
    assert not is_valid_id(model_id)
    with pytest.raises(errors.ModelNotFound) as caught:
        Registry(models).get(model_id)
    caught.value.message.encode()


@pytest.mark.acceptance("M7")
def test_links_out_of_the_directory_are_not_followed(models: Path, tmp_path: Path) -> None:
    outside = _put(tmp_path / "outside" / "secret.gguf")
    (models / "secret.gguf").symlink_to(outside)
    (models / "org").symlink_to(outside.parent)
    (models / "loop.gguf").symlink_to(models / "loop.gguf")
    (models / "gone.gguf").symlink_to(models / "nothing")
    inside = _put(models / "a.gguf")
    (models / "link.gguf").symlink_to(inside)
    assert _ids(Registry(models)) == ["a", "link"]
    problems = Registry(models).problems()
    assert problems == {
        "secret": "It leads out of the models directory; give it an alias instead.",
        "org/secret": "It leads out of the models directory; give it an alias instead.",
        "loop": "It leads nowhere.",
        "gone": "It leads nowhere.",
    }


def test_what_is_no_model_is_told(models: Path) -> None:
    _put(models / "white space.gguf")
    _put(models / ".hidden.gguf")
    _put(models / ".hidden" / "a.gguf")
    (models / "directory.gguf").mkdir()
    assert _ids(Registry(models)) == []
    assert Registry(models).problems() == {
        "white space": "Its name does not make an id.",
        "directory": "It is not a file.",
    }


def test_the_directory_itself_may_be_a_link(models: Path, tmp_path: Path) -> None:
    _put(models / "a.gguf")
    (tmp_path / "link").symlink_to(models)
    assert Registry(tmp_path / "link").get("a").id == "a"


def test_only_regular_files(models: Path) -> None:
    os.mkfifo(models / "fifo.gguf")
    (models / "directory.gguf").mkdir()
    registry = Registry(models, {"fifo-alias": "fifo.gguf"})
    assert registry.entries() == []
    with pytest.raises(errors.InvalidRequest):
        registry.get("fifo-alias")


def test_hidden_files_of_unfinished_pulls_are_not_models(models: Path) -> None:
    _put(models / ".a.gguf")
    _put(models / ".pull-x" / "model.gguf")
    assert _ids(Registry(models)) == []


@pytest.mark.acceptance("D7")
def test_aliases(models: Path, tmp_path: Path) -> None:
    inside, outside = _put(models / "a.gguf"), _put(tmp_path / "elsewhere" / "b.gguf")
    (tmp_path / "elsewhere" / "link.gguf").symlink_to(inside)
    registry = Registry(
        models,
        {
            "file": "a.gguf",
            "absolute": str(outside),
            "id": "a",
            "chain": "id",
            "link": str(tmp_path / "elsewhere" / "link.gguf"),
        },
    )
    paths = {entry.id: entry.path.resolve() for entry in registry.entries()}
    assert paths == {
        "a": inside, "absolute": outside, "chain": inside, "file": inside, "id": inside, "link": inside
    }  # fmt: skip


def test_an_alias_wins_over_a_file(models: Path) -> None:
    _put(models / "a.gguf")
    other = _put(models / "other.gguf")
    assert Registry(models, {"a": "other"}).get("a").path == other


def test_an_alias_of_its_own_name_is_the_file(models: Path) -> None:
    path = _put(models / "a.gguf")
    assert Registry(models, {"a": "a"}).get("a").path == path


def test_a_split_model_is_one(models: Path) -> None:
    parts = gguf.write_split(models, "big", 3)
    entry, = Registry(models).entries()  # fmt: skip
    assert (entry.id, entry.path) == ("big", parts[0])
    assert entry.size_bytes == sum(part.stat().st_size for part in parts)
    _put(models / "whole.gguf")
    whole = Registry(models).get("whole").info
    assert (entry.info.n_params, entry.info.size_bytes) == (whole.n_params, whole.size_bytes)


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_a_part_that_is_missing_is_named(models: Path, absent: int) -> None:
    parts = gguf.write_split(models, "big", 3)
    parts[absent].unlink()
    registry = Registry(models, {"also": parts[2].name if absent < 2 else parts[0].name})
    assert _ids(registry) == []
    assert parts[absent].name in registry.problems()["big"]
    for model_id in ("big", "also"):
        with pytest.raises(errors.InvalidRequest, match=parts[absent].name):
            registry.get(model_id)


def test_an_alias_may_name_any_part(models: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    parts = gguf.write_split(tmp_path / "elsewhere", "big", 3)
    registry = Registry(models, {str(number): str(part) for number, part in enumerate(parts)})
    assert {entry.path for entry in registry.entries()} == {parts[0]}


def test_a_whole_model_beside_the_rest_of_another(models: Path) -> None:
    first, _ = gguf.write_split(models, "big", 2)
    gguf.write_split(models, "big", 3)[0].unlink()
    assert Registry(models).get("big").path == first


def test_a_whole_file_beside_parts_that_are_left(models: Path) -> None:
    gguf.write_split(models, "big", 3)[1].unlink()
    whole = _put(models / "big.gguf")
    assert Registry(models).get("big").path == whole


def test_numbers_that_make_no_part_are_part_of_the_name(models: Path) -> None:
    _put(models / "m-00005-of-00003.gguf")
    _put(models / "m.gguf")
    assert _ids(Registry(models)) == ["m", "m-00005-of-00003"]


def test_the_path_of_a_file_that_is_no_model(models: Path) -> None:
    broken = _put(models / "broken.gguf", b"GGUF")
    registry = Registry(models, {"dangling": "gone.gguf"})
    assert registry.path("broken") == broken
    with pytest.raises(errors.ModelNotFound):
        registry.path("nothing")


def test_a_part_that_arrives_later_is_seen(models: Path) -> None:
    _, second = gguf.write_split(models, "big")
    data = second.read_bytes()
    second.unlink()
    registry = Registry(models)
    assert _ids(registry) == []
    assert list(registry.problems()) == ["big"]
    _put(second, data)
    assert _ids(registry) == ["big"]
