"""The order of the steps. Nothing else knows it, and no step knows another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import EngineUnavailable

if TYPE_CHECKING:
    from gateway.admission import Admission
    from gateway.audit import Audit
    from gateway.auth import AddressGate, KeyGate
    from gateway.body import BodyReader
    from gateway.cache import ResponseCache
    from gateway.disconnect import CancelledWhenGone
    from gateway.flights import Flights
    from gateway.metering import Metering
    from gateway.prepare import ImageStep
    from gateway.stages import Keyed, Parsed, RawRequest, Reply
    from gateway.steps import StepTimer
    from gateway.tracing import Tracing
    from gateway.upstream.dispatch import Upstream


class Pipeline:
    """A request in, a reply out; every refusal is a GatewayError raised by the step that refuses."""

    def __init__(
        self,
        address: AddressGate,
        keys: KeyGate,
        body: BodyReader,
        images: ImageStep,
        cache: ResponseCache,
        flights: Flights,
        metering: Metering,
        admission: Admission,
        upstream: Upstream,
        audit: Audit | None,
        tracing: Tracing | None,
    ) -> None:
        """The steps, in their order; `audit` and `tracing` hear of each request at its end."""
        self.address = address
        self.keys = keys
        self.body = body
        self.images = images
        self.cache = cache
        self.flights = flights
        self.metering = metering
        self.admission = admission
        self.upstream = upstream
        self.audit = audit
        self.tracing = tracing

    async def read(self, raw: RawRequest) -> Parsed:
        """Who calls and what they ask; the body stays unread until the caller is known."""
        raw.timer.enter("auth")
        identified = self.keys.identify(self.address.admit(raw))
        raw.timer.enter("body")
        return await self.body.read(identified)

    async def answer(self, parsed: Parsed, block: CancelledWhenGone) -> Reply:
        """What the caller gets. Cheap steps come first: a kept answer costs no decoding and no engine.

        `block` is the one in which the caller waits.
        """
        timer = parsed.identified.allowed.raw.timer
        if parsed.images:
            timer.enter("fetch")
        located = await self.images.locate(parsed)
        timer.facts["images"] = [picture.digest.hex() for picture in located.pictures] if located.pictures else []
        timer.enter("cache")
        keyed = self.cache.key(located)
        hit = await self.cache.find(keyed)
        timer.leave()
        if hit is not None:
            return hit
        if keyed.cache_key is None:
            return await self._ask(keyed)
        return await self.flights.join(keyed.cache_key, lambda: self._ask(keyed), block)

    async def _ask(self, keyed: Keyed) -> Reply:
        timer = keyed.located.parsed.identified.allowed.raw.timer
        timer.enter("limits")
        grant = await self.metering.charge(keyed)
        try:
            reply = await self._engine(keyed, timer)
            timer.leave()
            return self.metering.settled(keyed, reply, grant)
        except BaseException:
            # No engine has answered: nothing was taken.
            grant.settle(0)
            grant.release()
            raise

    async def _engine(self, keyed: Keyed, timer: StepTimer) -> Reply:
        if keyed.located.pictures:
            timer.enter("decode")
        prepared = await self.images.shrink(keyed)
        for last in (False, True):
            timer.enter("queue")
            scheduled = await self.admission.schedule(prepared)
            timer.enter("engine")
            try:
                return await self.upstream.send(scheduled)
            except EngineUnavailable:
                # The engines went away together. Where requests are held for them, this one queues once more.
                if last or not self.admission.holds:
                    raise
        raise AssertionError("unreachable")
