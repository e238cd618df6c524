"""Rate limits as headers."""

from __future__ import annotations

import time

from inferno.identity.limits import Admission, Window

#: Where the admission of a request stands in its scope, for the headers of its answer.
ADMISSION = "inferno.admission"


def headers(window: Window) -> dict[str, str]:
    """The API document's four; none for a limit that was lifted."""
    if not window.limit:
        return {}
    return {
        "X-RateLimit-Limit": str(window.limit),
        "X-RateLimit-Remaining": str(window.remaining),
        "X-RateLimit-Reset": str(round(window.resets)),
        "X-RateLimit-Reset-After": str(window.resets_after_s),
    }


def openai_headers(admission: Admission) -> dict[str, str]:
    """OpenAI's six: requests and tokens of this minute, resets as Go durations."""
    result: dict[str, str] = {}
    for name, window in (("requests", admission.window), ("tokens", admission.tokens)):
        if window is not None and window.limit:
            result[f"X-RateLimit-Limit-{name.title()}"] = str(window.limit)
            result[f"X-RateLimit-Remaining-{name.title()}"] = str(window.remaining)
            result[f"X-RateLimit-Reset-{name.title()}"] = f"{max(0, round((window.resets - time.time()) * 1000))}ms"
    return result
