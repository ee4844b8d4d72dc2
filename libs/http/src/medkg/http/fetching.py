"""Fetching a URL that somebody else wrote: hop by hop, each one checked before it is asked."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import httpx

from medkg.contracts.errors import MedkgError, SourceForbiddenError, SourceMalformedError
from medkg.http.destination import DestinationPolicy, read_destination, shown_url
from medkg.http.faults import fault_of_exception, retry_after
from medkg.http.politeness import Politeness
from medkg.http.transport import CheckedTransport

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HOLDING_OFF = frozenset({429, 503})  # statuses whose Retry-After is meant for the whole host
_DEFAULT_HOLD_OFF_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer that is no redirect, its body unread, and where it came from in the end."""

    answer: httpx.Response
    url: str
    hops: int


class Fetcher:
    """Fetches from servers that are not trusted, over checked connections."""

    def __init__(
        self,
        transport: CheckedTransport,
        policy: DestinationPolicy,
        politeness: Politeness,
        *,
        agent: str,
        connect_seconds: float,
        idle_seconds: float,
        max_redirects: int = 10,
    ) -> None:
        """``idle_seconds`` is the longest silence within an answer, ``agent`` the User-Agent."""
        self._transport = transport
        self._policy = policy
        self._politeness = politeness
        self._agent = agent
        self._timeouts = httpx.Timeout(idle_seconds, connect=connect_seconds).as_dict()
        self._max_redirects = max_redirects

    @asynccontextmanager
    async def open(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Fetched]:
        """The answer to GET, after redirects. Cookies live as long as this one walk; ``headers`` go to every hop.

        Raises:
            SourceForbiddenError: a hop leads where medkg does not go.
            SourceMalformedError: a redirect without a place to go to, or too many of them.
            SourceUnavailableError: no connection, or a timeout.
            SourceRateLimitedError: a host of the way asked not to be asked for a while.
        """
        cookies = httpx.Cookies()
        where = read_destination(url, self._policy)
        for hop in range(self._max_redirects + 1):
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self._politeness.turn(where.host))
                answer = await self._ask(where, headers, cookies)
                stack.push_async_callback(answer.aclose)
                self._keep_away(where.host, answer)
                if answer.status_code not in _REDIRECTS:
                    yield Fetched(answer, str(where), hop)
                    return
                cookies.extract_cookies(answer)
                where = self._next(where, answer)
        raise SourceMalformedError(f"reading {shown_url(url)}: more than {self._max_redirects} redirects")

    async def _ask(self, where: httpx.URL, headers: Mapping[str, str], cookies: httpx.Cookies) -> httpx.Response:
        # Without httpx's client: it keeps cookies, reads proxies from the environment, and stumbles over bad redirects.
        request = httpx.Request(
            "GET",
            where,
            headers={"User-Agent": self._agent, **headers},
            extensions={"timeout": self._timeouts},
        )
        cookies.set_cookie_header(request)
        try:
            answer = await self._transport.handle_async_request(request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise fault_of_exception(shown_url(str(where)), error) from error
        answer.request = request
        return answer

    def _keep_away(self, host: str, answer: httpx.Response) -> None:
        if answer.status_code not in _HOLDING_OFF:
            return
        asked = retry_after(answer.headers)
        if asked is not None:
            self._politeness.hold_off(host, asked)
        elif answer.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            self._politeness.hold_off(host, _DEFAULT_HOLD_OFF_SECONDS)

    def _next(self, where: httpx.URL, answer: httpx.Response) -> httpx.URL:
        place = answer.headers.get("Location", "")
        shown = shown_url(str(where))
        if not place:
            raise SourceMalformedError(f"reading {shown}: {answer.status_code} without a Location")
        try:
            following = str(where.join(place)) if not _has_scheme(place) else place
            return read_destination(following, self._policy)
        except httpx.InvalidURL as error:
            raise SourceMalformedError(f"reading {shown}: it redirects to what is no URL: {error}") from error
        except MedkgError as error:
            kind = SourceForbiddenError if isinstance(error, SourceForbiddenError) else SourceMalformedError
            raise kind(f"{error.message} (redirected from {shown})") from error


def _has_scheme(place: str) -> bool:
    head, colon, _ = place.partition(":")
    return bool(colon) and head.replace("+", "").replace("-", "").replace(".", "").isalnum()
