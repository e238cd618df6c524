from typing import Any

import pytest
from inferno import errors
from inferno.engine import fitting
from inferno.engine.devices import Device, KnownDevices

pytestmark = pytest.mark.anyio

MIB = 1 << 20
MEMORY: dict[str, Any] = {"host_bytes": 900 * MIB, "context_bytes": 800 * MIB, "context_size": 8192}


def test_what_fits_is_let_through() -> None:
    fitting.check(MEMORY, 900 * MIB, "m")


@pytest.mark.parametrize(
    ("available", "hint"),
    [
        (899, "A context_size of 7936 would fit, or a smaller parallel."),
        (500, "A context_size of 4096 would fit, or a smaller parallel."),
        (125, "A context_size of 256 would fit, or a smaller parallel."),
        (124, "A smaller model, or one that is quantized further, would fit."),
        (50, "A smaller model, or one that is quantized further, would fit."),
    ],
)
def test_what_does_not_is_refused_with_what_would(available: int, hint: str) -> None:
    with pytest.raises(errors.ServiceUnavailable) as refused:
        fitting.check(MEMORY, available * MIB, "m")
    assert refused.value.message == f"Model 'm' needs 900 MiB; {available} MiB can be had. {hint}"
    assert refused.value.details["needed_bytes"] == 900 * MIB


async def test_devices_are_asked_for_once_and_by_whoever_comes_first() -> None:
    asked = 0

    async def ask() -> list[Device]:
        nonlocal asked
        asked += 1
        return []

    known = KnownDevices(ask)
    assert await known.all() == await known.all() == []
    assert asked == 1
