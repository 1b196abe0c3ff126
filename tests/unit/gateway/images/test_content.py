"""The cache of fetched pictures, over real sockets: what is downloaded, what is asked about, what is given again."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from gateway.generations import Generation
from gateway.images import ImageRefused
from gateway.images.content import KEEP_STALE_S, ContentCache
from gateway.stores import MemoryStore
from tests.unit.gateway.images.servers import PICTURE, Names, answering, fetcher, serving

MIB = 1 << 20
CAP = MIB


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


class Cached:
    """A content cache over a real fetcher, with time in the test's hand."""

    def __init__(self, store=None, max_entry_bytes=MIB, fetching=None, **fetcher_options):
        self.clock = Clock()
        self.store = MemoryStore(8 * MIB, clock=self.clock) if store is None else store
        self.outcomes = []
        self.fetcher = fetcher(**fetcher_options) if fetching is None else fetching
        self.cache = ContentCache(
            self.fetcher,
            self.store,
            max_entry_bytes=max_entry_bytes,
            generation=Generation(),
            on_outcome=lambda outcome, spent_s: self.outcomes.append(outcome) if spent_s >= 0 else None,
            clock=self.clock,
        )

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.cache.aclose()
        await self.fetcher.aclose()

    async def get(self, url, tenant="one", max_bytes=CAP):
        return await self.cache.get(tenant, url, max_bytes=max_bytes)


@pytest.fixture
async def server():
    async with serving() as running:
        yield running


def changing(**headers):
    """An answer that honours If-None-Match for the ETag of its current `body`."""
    state = {"body": PICTURE, "etag": '"1"', **headers}

    async def answer(request):
        sent = {name.replace("_", "-"): value for name, value in state.items() if name not in {"body", "etag"}}
        sent["ETag"] = state["etag"]
        if request.headers.get("If-None-Match") == state["etag"]:
            return web.Response(status=304, headers=sent)
        return web.Response(body=state["body"], headers=sent)

    return state, answer


class TestFreshness:
    async def test_a_fresh_picture_is_given_again_without_asking(self, server):
        server.answer = answering(body=PICTURE, Cache_Control="max-age=60")
        async with Cached() as cached:
            assert await cached.get(server.url()) == await cached.get(server.url()) == PICTURE
            cached.clock.now += 59
            await cached.get(server.url())
            assert cached.outcomes == ["fetched", "fresh", "fresh"]
            cached.clock.now += 2
            await cached.get(server.url())
        assert len(server.seen) == 2
        assert "If-None-Match" not in server.seen[1].headers

    async def test_a_stale_picture_is_asked_about_and_not_downloaded(self, server):
        _, server.answer = changing(Cache_Control="max-age=60", Last_Modified="Sun, 06 Nov 1994 08:49:37 GMT")
        async with Cached() as cached:
            await cached.get(server.url())
            cached.clock.now += 61
            assert await cached.get(server.url()) == PICTURE
            assert await cached.get(server.url()) == PICTURE
            assert cached.outcomes == ["fetched", "revalidated", "fresh"]
        assert server.seen[1].headers["If-None-Match"] == '"1"'
        assert server.seen[1].headers["If-Modified-Since"] == "Sun, 06 Nov 1994 08:49:37 GMT"

    async def test_a_picture_that_changed_takes_the_place_of_the_old_one(self, server):
        state, server.answer = changing(Cache_Control="no-cache")
        async with Cached() as cached:
            await cached.get(server.url())
            state |= {"body": b"new", "etag": '"2"'}
            assert await cached.get(server.url()) == b"new"
            assert await cached.get(server.url()) == b"new"
            assert cached.outcomes == ["fetched", "fetched", "revalidated"]

    async def test_without_a_word_about_caching_it_is_asked_about_every_time(self, server):
        _, server.answer = changing()
        async with Cached() as cached:
            for _ in range(3):
                await cached.get(server.url())
            assert cached.outcomes == ["fetched", "revalidated", "revalidated"]

    @pytest.mark.parametrize("control", ["no-store, max-age=60", "private"])
    async def test_what_must_not_be_kept_is_not(self, server, control):
        server.answer = answering(body=PICTURE, Cache_Control=control, ETag='"1"')
        async with Cached() as cached:
            for _ in range(2):
                await cached.get(server.url())
            assert cached.outcomes == ["fetched", "fetched"]
            assert len(cached.store) == 0

    async def test_with_neither_freshness_nor_validators_nothing_is_kept(self, server):
        async with Cached() as cached:
            await cached.get(server.url())
            assert len(cached.store) == 0

    async def test_a_server_that_changes_its_mind_about_keeping_is_obeyed(self, server):
        state, server.answer = changing()
        async with Cached() as cached:
            await cached.get(server.url())
            state["Cache_Control"] = "no-store"
            assert await cached.get(server.url()) == PICTURE
            await cached.get(server.url())
            assert cached.outcomes == ["fetched", "revalidated", "fetched"]

    async def test_a_stale_picture_is_never_given_when_its_server_fails(self, server):
        _, server.answer = changing()
        async with Cached() as cached:
            await cached.get(server.url())
            server.answer = answering(503)
            with pytest.raises(ImageRefused, match="503"):
                await cached.get(server.url())
            assert cached.outcomes == ["fetched", "failed"]

    async def test_after_an_hour_unasked_it_is_downloaded_anew(self, server):
        _, server.answer = changing()
        async with Cached() as cached:
            await cached.get(server.url())
            cached.clock.now += KEEP_STALE_S + 1
            await cached.get(server.url())
            assert cached.outcomes == ["fetched", "fetched"]

    async def test_a_304_that_was_not_asked_for_is_a_refusal(self, server):
        server.answer = answering(304)
        async with Cached() as cached:
            with pytest.raises(ImageRefused, match="304"):
                await cached.get(server.url())

    async def test_a_304_without_validators_keeps_the_old_ones(self, server):
        async def answer(request):
            if "If-None-Match" in request.headers:
                return web.Response(status=304)
            return web.Response(body=PICTURE, headers={"ETag": '"1"'})

        server.answer = answer
        async with Cached() as cached:
            for _ in range(3):
                await cached.get(server.url())
            assert cached.outcomes == ["fetched", "revalidated", "revalidated"]


class TestBounds:
    async def test_a_picture_above_the_entry_cap_is_not_kept(self, server):
        server.answer = answering(body=PICTURE, Cache_Control="max-age=60")
        async with Cached(max_entry_bytes=len(PICTURE) - 1) as cached:
            await cached.get(server.url())
            assert len(cached.store) == 0

    async def test_all_together_stay_within_the_store(self, server):
        server.answer = answering(body=bytes(100_000), Cache_Control="max-age=60")
        store = MemoryStore(MIB)
        async with Cached(store) as cached:
            for n in range(30):
                await cached.get(server.url(f"/{n}"))
            assert 0 < store.bytes_used <= MIB
            assert store.evictions > 0

    async def test_an_entry_whose_bytes_were_pushed_out_is_downloaded_anew(self, server):
        server.answer = answering(body=PICTURE, Cache_Control="max-age=60")
        async with Cached() as cached:
            await cached.get(server.url())
            for key in [key for key in cached.store._entries if b"/" in key]:
                await cached.store.put(key, b"", 0)
            assert await cached.get(server.url()) == PICTURE
            assert cached.outcomes == ["fetched", "fetched"]

    async def test_a_lower_cap_holds_for_kept_pictures_too(self, server):
        server.answer = answering(body=PICTURE, Cache_Control="max-age=60")
        async with Cached() as cached:
            await cached.get(server.url())
            with pytest.raises(ImageRefused) as caught:
                await cached.get(server.url(), max_bytes=len(PICTURE) - 1)
            assert caught.value.reason == "image_too_large"


class TestWhoMaySee:
    async def test_a_tenant_never_gets_what_another_fetched(self, server):
        server.answer = answering(body=PICTURE, Cache_Control="max-age=60")
        async with Cached() as cached:
            await cached.get(server.url("/a?sig=s3cr3t"), tenant="one")
            server.answer = answering(403)
            with pytest.raises(ImageRefused, match="403"):
                await cached.get(server.url("/a?sig=s3cr3t"), tenant="two")
            assert await cached.get(server.url("/a?sig=s3cr3t"), tenant="one") == PICTURE

    async def test_tenants_do_not_share_a_download_either(self, server):
        go = asyncio.Event()

        async def answer(_):
            await go.wait()
            return web.Response(body=PICTURE)

        server.answer = answer
        async with Cached() as cached:
            tasks = [asyncio.create_task(cached.get(server.url(), tenant=tenant)) for tenant in ("one", "two")]
            while len(server.seen) < 2:
                await asyncio.sleep(0)
            go.set()
            assert await asyncio.gather(*tasks) == [PICTURE, PICTURE]

    async def test_a_host_taken_off_the_list_is_not_served_from_the_cache(self, server):
        server.answer = answering(body=PICTURE, Cache_Control="max-age=60")
        async with Cached() as before, Cached(before.store, fetching=fetcher(hosts=["img.test"])) as after:
            await before.get(server.url())
            with pytest.raises(ImageRefused) as caught:
                await after.get(server.url())
            assert caught.value.reason == "host_not_allowed"

    async def test_a_name_that_moved_to_a_private_address_is_refused_on_revalidation(self, server):
        _, answer = changing()

        async def closing(request):
            response = await answer(request)
            response.force_close()
            return response

        server.answer = closing
        names = Names(img_test=[["127.0.0.1"], ["127.0.0.2"]])
        async with Cached(resolver=names) as cached:
            await cached.get(server.url(host="img.test"))
            with pytest.raises(ImageRefused) as caught:
                await cached.get(server.url(host="img.test"))
            assert caught.value.reason == "private_address"

    async def test_nothing_kept_names_the_url(self, server):
        server.answer = answering(body=PICTURE, Cache_Control="max-age=60", ETag='"1"')
        async with Cached() as cached:
            await cached.get(server.url("/a?sig=s3cr3t"))
            kept = b"".join(key + value for key, (value, _) in cached.store._entries.items())
            assert b"s3cr3t" not in kept
            assert b"127.0.0.1" not in kept


class TestRedirects:
    async def test_only_the_url_that_gave_an_etag_is_asked_with_it(self, server):
        """Else a server that happens to use the same ETag would vouch for another's picture."""

        async def moved(request):
            if request.path == "/old":
                return web.Response(status=302, headers={"Location": "/new", "Cache-Control": "max-age=9"})
            return web.Response(body=PICTURE, headers={"ETag": '"1"', "Cache-Control": "max-age=9"})

        async def own(request):
            return web.Response(status=304) if "If-None-Match" in request.headers else web.Response(body=b"own")

        server.answer = moved
        async with Cached() as cached:
            await cached.get(server.url("/old"))
            cached.clock.now += 10
            server.answer = own
            assert await cached.get(server.url("/old")) == b"own"
        assert ["If-None-Match" in request.headers for request in server.seen] == [False, False, False]

    async def test_the_end_of_a_redirect_is_asked_about_through_the_redirect(self, server):
        _, answer = changing(Cache_Control="max-age=9")

        async def moved(request):
            if request.path == "/old":
                return web.Response(status=302, headers={"Location": "/new"})
            return await answer(request)

        server.answer = moved
        async with Cached() as cached:
            await cached.get(server.url("/old"))
            await cached.get(server.url("/old"))
            assert cached.outcomes == ["fetched", "revalidated"]
        assert [request.path for request in server.seen] == ["/old", "/new"] * 2

    @pytest.mark.parametrize(
        ("status", "control", "then"),
        [
            (301, None, "fresh"),
            (308, None, "fresh"),
            (301, "max-age=1", "fetched"),
            (302, None, "fetched"),
            (302, "max-age=1", "fetched"),
            (302, "max-age=60", "fresh"),
            (307, "no-store", "fetched"),
        ],
    )
    async def test_a_redirect_that_may_change_bounds_the_freshness(self, server, status, control, then):
        async def moved(request):
            if request.path != "/end":
                steps = {"/start": "/middle", "/middle": "/end"}
                headers = {"Location": steps[request.path]} | ({"Cache-Control": control} if control else {})
                return web.Response(status=status, headers=headers)
            return web.Response(body=PICTURE, headers={"Cache-Control": "max-age=9"})

        server.answer = moved
        async with Cached() as cached:
            await cached.get(server.url("/start"))
            cached.clock.now += 2
            await cached.get(server.url("/start"))
            assert cached.outcomes == ["fetched", then]

    async def test_a_redirect_to_what_must_not_be_kept_is_not_kept(self, server):
        async def moved(request):
            if request.path == "/old":
                return web.Response(status=302, headers={"Location": "/new"})
            return web.Response(body=PICTURE, headers={"Cache-Control": "no-store", "ETag": '"1"'})

        server.answer = moved
        async with Cached() as cached:
            await cached.get(server.url("/old"))
            assert len(cached.store) == 0


class TestJoining:
    async def test_those_who_ask_at_once_share_one_download(self, server):
        go = asyncio.Event()

        async def answer(_):
            await go.wait()
            return web.Response(body=PICTURE)

        server.answer = answer
        async with Cached() as cached:
            tasks = [asyncio.create_task(cached.get(server.url())) for _ in range(50)]
            while not server.seen:
                await asyncio.sleep(0)
            go.set()
            assert await asyncio.gather(*tasks) == [PICTURE] * 50
            assert cached.outcomes == ["fetched"]
        assert len(server.seen) == 1

    async def test_who_leaves_does_not_take_the_download_from_the_others(self, server):
        go = asyncio.Event()

        async def answer(_):
            await go.wait()
            return web.Response(body=PICTURE)

        server.answer = answer
        async with Cached() as cached:
            first, second = [asyncio.create_task(cached.get(server.url())) for _ in range(2)]
            while not server.seen:
                await asyncio.sleep(0)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            go.set()
            assert await second == PICTURE

    async def test_when_the_last_one_leaves_the_download_ends(self, server):
        reached, left = asyncio.Event(), asyncio.Event()

        async def answer(request):
            reached.set()
            while request.transport is not None and not request.transport.is_closing():
                await asyncio.sleep(0)
            left.set()
            return web.Response()

        server.answer = answer
        async with Cached() as cached:
            tasks = [asyncio.create_task(cached.get(server.url())) for _ in range(2)]
            await reached.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.wait_for(left.wait(), 5)
            assert cached.outcomes == []
            server.answer = None
            assert await cached.get(server.url()) == PICTURE

    async def test_a_failure_reaches_all_who_wait_and_is_not_kept(self, server):
        server.answer = answering(500)
        async with Cached() as cached:
            refused = await asyncio.gather(*(cached.get(server.url()) for _ in range(3)), return_exceptions=True)
            assert [type(outcome) for outcome in refused] == [ImageRefused] * 3
            assert cached.outcomes == ["failed"]
            server.answer = None
            assert await cached.get(server.url()) == PICTURE

    async def test_closing_ends_what_is_under_way(self, server):
        reached = asyncio.Event()

        async def answer(_):
            reached.set()
            await asyncio.Event().wait()

        server.answer = answer
        async with Cached() as cached:
            task = asyncio.create_task(cached.get(server.url()))
            await reached.wait()
            await cached.cache.aclose()
            with pytest.raises(asyncio.CancelledError):
                await task
