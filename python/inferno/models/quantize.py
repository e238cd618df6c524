"""A model anew with weights of another type, compared with the one it was made of before it is put in place."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from inferno import _core, errors
from inferno.engine import child
from inferno.models import preflight
from inferno.models.install import check_space, check_target, disk_errors, install, locked
from inferno.models.manifest import sha256
from inferno.models.parts import parts_of

#: A model that takes more than this many times the source's perplexity is broken.
MAX_RATIO = 2.0


class Quantization(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted: one of `inferno._core.file_types()`. `threads` 0 takes as many as the machine has."""

    type: str
    threads: int = 0
    allow_requantize: bool = False
    leave_output: bool = False
    pure: bool = False
    imatrix: str = ""  # an importance matrix's file


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Perplexities over the built-in text, of `tokens` tokens."""

    source: float
    result: float
    tokens: int

    @property
    def ratio(self) -> float:
        return self.result / self.source

    def sound(self, max_ratio: float) -> bool:
        """False when the result is not a number or too much worse than its source."""
        return math.isfinite(self.result) and self.ratio <= max_ratio


class Quantized(msgspec.Struct, frozen=True, kw_only=True):
    """`fallbacks` tensors have another type than planned, since their rows do not fit its blocks. `verification` is
    None when none was wanted or the model does not generate."""

    path: Path
    size_bytes: int
    sha256: str
    fallbacks: int
    verification: Verification | None


def check(source: Path, target: Path, wanted: Quantization, *, force: bool = False) -> None:
    """Everything that can be known before the work: raises InvalidRequest or ServiceUnavailable (no room)."""
    if wanted.type not in _core.file_types():
        known = ", ".join(_core.file_types())
        raise errors.InvalidRequest(f"There is no type {wanted.type}. Known types: {known}.", field="type")
    preflight.check(source)
    check_target(target, force=force)
    if target.exists() and any(part.exists() and target.samefile(part) for part in parts_of(source)):
        raise errors.InvalidRequest("The output is the source itself.", field="output")
    size, requantizes, needs_imatrix = child.call(
        "plan_quantization",
        {
            "source": str(source),
            "type": wanted.type,
            "leave_output": wanted.leave_output,
            "pure": wanted.pure,
            "imatrix": wanted.imatrix,
        },
    )
    if needs_imatrix:
        raise errors.InvalidRequest(f"{wanted.type} needs an importance matrix (--imatrix).", field="imatrix")
    if requantizes and not wanted.allow_requantize:
        raise errors.InvalidRequest(
            "The source is quantized already, and quantizing it again loses more than quantizing the original; "
            "--allow-requantize does it all the same.",
            field="allow_requantize",
        )
    check_space(target.parent, size + preflight.MAX_METADATA)


def quantize(
    source: Path,
    target: Path,
    wanted: Quantization,
    models_dir: Path,
    *,
    engine: Mapping[str, Any] | None = None,
    max_ratio: float | None = MAX_RATIO,
    force: bool = False,
    progress: child.Progress = lambda done, total: None,
) -> Quantized:
    """Write `target`, which appears when it is complete and has been found sound; an interruption leaves nothing.

    `engine` options are those of the comparison, which `max_ratio` None leaves out. `progress` gets (tensors begun, all
    tensors). Raises what `check` raises, and InvalidRequest for a result that is broken.
    """
    check(source, target, wanted, force=force)
    with (
        disk_errors(),
        locked(target),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".quantize-") as temporary,
    ):
        made = Path(temporary) / target.name
        arguments = {"source": str(source), "target": str(made), **msgspec.to_builtins(wanted)}
        fallbacks = child.call("quantize", arguments, progress)
        verification = None if max_ratio is None else verify(source, made, engine or {})
        if verification is not None and max_ratio is not None and not verification.sound(max_ratio):
            raise errors.InvalidRequest(_verdict(verification, max_ratio), field="type")
        digest = sha256(made)
        install({made: target}, {target: digest}, models_dir)
    size = target.stat().st_size
    return Quantized(path=target, size_bytes=size, sha256=digest, fallbacks=fallbacks, verification=verification)


def verify(source: Path, result: Path, engine: Mapping[str, Any]) -> Verification | None:
    """Both perplexities over the built-in text; None for models that do not generate text."""
    if not _core.inspect_model(str(source))["can_generate"]:
        return None
    before, tokens = perplexity(source, engine)
    after, _ = perplexity(result, engine)
    return Verification(source=before, result=after, tokens=tokens)


def perplexity(path: Path, engine: Mapping[str, Any]) -> tuple[float, int]:
    """(perplexity, tokens foretold) over the built-in text, as far as the model's context goes. Not a number when the
    model's logits are none."""
    arguments = {"path": str(path), "options": dict(engine), "text": reference_text()}
    mean_nll, tokens = child.call("measure_perplexity", arguments)
    return (math.nan if mean_nll is None else math.exp(min(mean_nll, 700.0))), tokens  # JSON has no NaN


def reference_text() -> str:
    return resources.files("inferno.models").joinpath("reference_text.txt").read_text()


def _verdict(found: Verification, max_ratio: float) -> str:
    return (
        f"The result is broken: its perplexity over the built-in text is {found.result:.2f}, the source's "
        f"{found.source:.2f}, and {max_ratio:g} times that is the most that is let pass. Nothing was written; "
        "--no-verify writes it all the same."
    )
