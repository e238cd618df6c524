"""Rate limits: requests per minute and hour, tokens per minute, requests at once; per key, user or address.

Counting is by fixed windows that begin with the first request in them. The counters are behind the storage interface
of the `limits` library: in this process (bounded, on a clock that nobody can set), or in Redis by its URL, which
several servers can share; requests at once are counted in each server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterator
from typing import cast

import msgspec
from limits.aio.storage import Storage
from limits.errors import ConfigurationError
from limits.storage import storage_from_string

from inferno import errors
from inferno.config import LimitSettings
from inferno.identity.callers import Limits

log = logging.getLogger(__name__)

_MINUTE, _HOUR = 60, 3600
_MAX_COUNTERS = 100_000
#: Seconds to wait for a storage, and to do without one that did not answer.
_STORAGE_S = 0.5
_AWAY_S = 5.0
#: Characters of a prompt for each token that is set aside before the prompt has been counted.
_CHARACTERS_PER_TOKEN = 4


class BoundedMemory(Storage):
    """Counters in this process. The least recently used go first when there are too many."""

    STORAGE_SCHEME = None

    def __init__(self, max_counters: int = _MAX_COUNTERS) -> None:
        super().__init__()
        self._counters: OrderedDict[str, tuple[int, float]] = OrderedDict()  # key -> count, end of its window
        self._max = max_counters

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now = time.monotonic()
        count, ends = self._counters.get(key, (0, 0.0))
        if ends <= now:
            count, ends = 0, now + expiry
        self._counters[key] = (count + amount, ends)
        self._counters.move_to_end(key)
        if len(self._counters) > self._max:
            self._counters.popitem(last=False)
        return count + amount

    async def get(self, key: str) -> int:
        count, ends = self._counters.get(key, (0, 0.0))
        return count if ends > time.monotonic() else 0

    async def get_expiry(self, key: str) -> float:
        """In wall-clock time, as the interface has it."""
        left = self._counters.get(key, (0, 0.0))[1] - time.monotonic()
        return time.time() + max(left, 0.0)

    async def clear(self, key: str) -> None:
        self._counters.pop(key, None)

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        count = len(self._counters)
        self._counters.clear()
        return count


class Window(msgspec.Struct, frozen=True):
    """One limit as a client is told of it. `resets` in UTC seconds since 1970."""

    name: str
    limit: int
    remaining: int
    resets: float

    @property
    def resets_after_s(self) -> int:
        return max(0, math.ceil(self.resets - time.time()))


class Exceeded(errors.RateLimitExceeded):
    """`window` is the limit that was hit."""

    def __init__(self, window: Window) -> None:
        seconds = max(1, window.resets_after_s)
        super().__init__(
            f"Rate limit exceeded. Please retry after {seconds} seconds.", limit=window.name, retry_after=seconds
        )
        self.window = window


class Limiter:
    """Admits requests. Nothing is counted for one that is refused."""

    def __init__(self, settings: LimitSettings, storage: Storage | None = None) -> None:
        self._settings = settings
        self._storage = storage or open_storage(settings.storage)
        self._fallback: Storage = BoundedMemory()
        self._away_until = 0.0
        self._running: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def admit(self, subject: str, limits: Limits = Limits()) -> AsyncIterator[Admission | None]:  # noqa: B008
        """A request's stay; None when limits are switched off. Raises Exceeded."""
        if not self._settings.enabled:
            yield None
            return
        with self._place(subject, self._limit("concurrent_requests", limits)):
            admission = await self._count_request(subject, limits)
            try:
                yield admission
            except Exceeded:  # of the tokens
                await self._add("requests_per_minute", subject, _MINUTE, -1)
                await self._add("requests_per_hour", subject, _HOUR, -1)
                raise

    async def count_login(self, subject: str, limit: int | None = None) -> None:
        """One login attempt, of the configured ones or of `limit`. Raises Exceeded."""
        configured = self._settings.logins_per_minute
        if self._settings.enabled and configured:
            await self._count("logins_per_minute", subject, limit or configured, _MINUTE, 1)

    async def count_refusal(self, address: str) -> None:
        """One request whose credential is not valid; after as many as a caller may make, raises Exceeded."""
        if self._settings.enabled and self._settings.requests_per_minute:
            limit = self._settings.requests_per_minute
            await self._count("requests_per_minute", f"refused:{address}", limit, _MINUTE, 1)

    def _limit(self, name: str, limits: Limits) -> int:
        """0 is no limit."""
        own: int | None = getattr(limits, name)
        configured: int = getattr(self._settings, name)
        return configured if own is None else own

    @contextlib.contextmanager
    def _place(self, subject: str, limit: int) -> Iterator[None]:
        if limit and self._running[subject] >= limit:
            raise Exceeded(Window("concurrent_requests", limit, 0, time.time() + 1))
        self._running[subject] += 1
        try:
            yield
        finally:
            self._running[subject] -= 1
            if not self._running[subject]:
                del self._running[subject]

    async def _count_request(self, subject: str, limits: Limits) -> Admission:
        per_minute = self._limit("requests_per_minute", limits)
        window = await self._count("requests_per_minute", subject, per_minute, _MINUTE, 1)
        try:
            await self._count("requests_per_hour", subject, self._limit("requests_per_hour", limits), _HOUR, 1)
        except Exceeded:
            await self._add("requests_per_minute", subject, _MINUTE, -1)
            raise
        tokens = self._limit("tokens_per_minute", limits)
        share = tokens // max(1, self._limit("concurrent_requests", limits))
        return Admission(self, subject, window, tokens, share)

    async def _count(self, name: str, subject: str, limit: int, seconds: int, amount: int) -> Window:
        """Count `amount`, unless that goes beyond the limit. Raises Exceeded."""
        count = await self._add(name, subject, seconds, amount)
        window = await self.window(name, subject, limit, seconds, count)
        if limit and count > limit:
            await self._add(name, subject, seconds, -amount)
            raise Exceeded(window)
        return window

    async def window(self, name: str, subject: str, limit: int, seconds: int, count: int) -> Window:
        ends = await self._storage_call("get_expiry", _key(name, subject))
        return Window(name, limit, max(0, limit - count), min(ends, time.time() + seconds))

    async def _add(self, name: str, subject: str, seconds: int, amount: int) -> int:
        return int(await self._storage_call("incr", _key(name, subject), seconds, amount))

    async def _storage_call(self, method: str, *args: str | int) -> float:
        """A storage that does not answer is replaced, for a while, by counters in this process: limits stay."""
        if time.monotonic() >= self._away_until:
            try:
                async with asyncio.timeout(_STORAGE_S):
                    return await getattr(self._storage, method)(*args)  # type: ignore[no-any-return]
            except Exception as error:
                self._away_until = time.monotonic() + _AWAY_S
                kind = type(error).__name__
                log.warning("the rate limits' storage does not answer (%s); counting here for %g s", kind, _AWAY_S)
        return await getattr(self._fallback, method)(*args)  # type: ignore[no-any-return]


class Admission:
    """One request that was let in. `window` is the requests per minute."""

    def __init__(self, limiter: Limiter, subject: str, window: Window, tokens_per_minute: int, share: int) -> None:
        self.window = window
        self._limiter = limiter
        self._subject = subject
        self._limit = tokens_per_minute
        self._share = share
        self._reserved = 0
        self._until = 0.0
        self.tokens: Window | None = None

    async def reserve(self, characters: int, max_tokens: int) -> None:
        """Set aside what the request may take of the tokens per minute: at most an equal share for each request that
        may run at once, and what is left. Raises Exceeded when nothing is left."""
        if not self._limit:
            return
        wanted = min(max(1, characters // _CHARACTERS_PER_TOKEN + max_tokens), max(1, self._share))
        add = self._limiter._add
        count = await add("tokens_per_minute", self._subject, _MINUTE, wanted)
        window = await self._limiter.window("tokens_per_minute", self._subject, self._limit, _MINUTE, count)
        if count - wanted >= self._limit:
            await add("tokens_per_minute", self._subject, _MINUTE, -wanted)
            raise Exceeded(window)
        self.tokens, self._reserved = window, wanted
        self._until = time.monotonic() + window.resets - time.time()

    async def settle(self, tokens: int) -> None:
        """Replace what was set aside by what was used, prompt and completion together. Once; later calls do nothing."""
        if self._reserved:
            same_window = time.monotonic() < self._until
            change = tokens - self._reserved if same_window else tokens
            self._reserved = 0
            if change:
                await self._limiter._add("tokens_per_minute", self._subject, _MINUTE, change)


def open_storage(url: str) -> Storage:
    """Empty is this process; else redis://, rediss:// or valkey:// and so on. Raises InvalidRequest."""
    if not url:
        return BoundedMemory()
    try:
        options = {"implementation": "redispy"} if url.startswith("redis") else {}
        return cast(Storage, storage_from_string(f"async+{url}", **options))
    except ConfigurationError as error:
        raise errors.InvalidRequest(
            f"limits.storage cannot be used: {str(error).splitlines()[0]}", field="limits.storage"
        ) from None


def _key(name: str, subject: str) -> str:
    return f"inferno/{name}/{subject}"
