"""The gateway's image, built and run: small, nothing in it that does not belong there, and it answers."""

from __future__ import annotations

import asyncio
import re
import stat

import httpx
import pytest
from aiohttp import web

import gateway as gateway_package
from tests.containers.conftest import GATEWAY_USER, VERSION
from tests.support import images
from tests.support.containers import HARDENED, LIMITS, ROOT, inspected, mounted, podman, started
from tests.support.engine import DONE, chunk
from tests.support.gateway import KEY
from tests.support.pictures import data_url, png, question

# The first test waits for the base and the build.
pytestmark = pytest.mark.timeout(1800)

CHAT = "/v1/chat/completions"
MOST_BYTES = 250_000_000
COMPILERS = re.compile(
    r"^(cc|c\+\+|gcc.*|g\+\+.*|clang.*|ld|ld\.(bfd|gold|lld)|as|make|cmake|rustc|cargo|go|.*-linux-gnu-(gcc|g\+\+|ld).*)$"
)


@pytest.fixture(scope="module")
def files(gateway_image):
    """(path within the image, path here) of all its files."""
    with mounted(gateway_image) as root:
        yield [("/" + str(path.relative_to(root)), path) for path in root.rglob("*") if not path.is_dir()]


class TestWhatIsInIt:
    def test_it_is_below_250_mb(self, gateway_image):
        assert inspected(gateway_image)["Size"] < MOST_BYTES

    def test_it_says_what_it_is_and_how_it_runs(self, gateway_image, revision):
        found = inspected(gateway_image)
        config, labels = found["Config"], found["Labels"]
        assert config["User"] == f"{GATEWAY_USER}:{GATEWAY_USER}"
        assert config["Entrypoint"] == ["python", "-m", "gateway"]
        assert config["Cmd"] == ["serve"]
        assert config["ExposedPorts"].keys() == {"8080/tcp", "9090/tcp"}
        assert labels["org.opencontainers.image.version"] == VERSION
        assert labels["org.opencontainers.image.revision"] == revision
        assert found["Healthcheck"]["Test"][0] == "CMD"

    def test_it_has_no_compiler(self, files):
        assert not [name for name, path in files if "/bin/" in name and COMPILERS.match(path.name)]

    def test_pip_and_its_cache_are_not_in_it(self, files):
        left = re.compile(r"\.whl$|\.tar\.gz$|/\.cache/|/pip\.conf$|^/opt/.*/site-packages/(pip|setuptools|wheel)/")
        # The base's own ensurepip has wheels.
        assert not [name for name, _ in files if left.search(name) and not name.startswith("/usr/share/python-wheels/")]

    def test_the_package_alone_is_in_it(self, files):
        ours = {name.removeprefix("/opt/qwen3-vl/") for name, _ in files if name.startswith("/opt/qwen3-vl/")}
        sources = {name for name in ours if name.endswith(".py")}
        assert sources == {str(path.relative_to(ROOT)) for path in (ROOT / "gateway").rglob("*.py")}
        assert not {name for name in ours - sources if "__pycache__" not in name and "/playground/" not in name}

    def test_where_packages_came_from_is_not_in_it(self, gateway_image, files):
        source = images.mirror()
        places = [word for value in images.pip_settings().values() for word in value.split() if len(word) > 8]
        # The base has the machine's certificates' usual place, whatever pip is told.
        secrets = [place.encode() for place in (*places, source.url) if not place.startswith("/etc/ssl/")]
        assert secrets
        for name, path in files:
            if path.is_symlink() or not path.is_file():
                continue
            content = path.read_bytes()
            assert not [secret for secret in secrets if secret in content], name
        history = podman("history", "--no-trunc", "--format", "{{.CreatedBy}}", gateway_image).encode()
        assert not [secret for secret in secrets if secret in history]

    def test_its_user_can_change_nothing(self, files):
        open_to_all = [
            name
            for name, path in files
            if not path.is_symlink() and path.lstat().st_mode & stat.S_IWOTH and not name.startswith("/dev/")
        ]
        theirs = [name for name, path in files if GATEWAY_USER in {path.lstat().st_uid, path.lstat().st_gid}]
        assert not open_to_all + theirs


class TestWhatItDoes:
    async def test_it_answers_a_question_about_a_picture(self, start_gateway, engine):
        gateway = await start_gateway(engine.url)
        response = await gateway.http.post(CHAT, json=question(data_url(png(size=(2000, 1500)))))
        assert response.status_code == 200, response.text
        assert response.json()["choices"][0]["message"]["content"] == "answer 1"
        [asked] = engine.requests
        assert asked["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/")
        assert (
            await gateway.http.post(CHAT, json=question(data_url(png())), headers={"authorization": "Bearer x"})
        ).status_code == 401
        assert KEY not in gateway.container.log

    async def test_it_is_not_root_and_can_write_to_tmp_only_and_tells_its_health(self, start_gateway, engine, revision):
        # One container for all: each start copies the image.
        gateway = await start_gateway(engine.url)
        status = podman("exec", gateway.container.id, "python", "-c", "print(open('/proc/1/status').read())")
        assert re.search(rf"^Uid:\s+{GATEWAY_USER}\s+{GATEWAY_USER}\b", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        command = podman("exec", gateway.container.id, "python", "-c", "print(open('/proc/1/cmdline').read())")
        assert command.strip().rstrip("\0").split("\0") == ["python", "-m", "gateway", "serve"]
        for folder, code in (("/opt/qwen3-vl", 1), ("/", 1), ("/tmp", 0)):
            assert await asyncio.to_thread(gateway.container.run, "touch", f"{folder}/x") == code, folder
        assert await asyncio.to_thread(gateway.container.health) == 0
        async with httpx.AsyncClient() as http:
            metrics = (await http.get(gateway.metrics_url)).text
        assert "gateway_engine_up" in metrics
        [told] = [line for line in metrics.splitlines() if line.startswith("gateway_build_info{")]
        assert f'revision="{revision}",version="{gateway_package.__version__}"' in told
        assert told.endswith(" 1.0")

    async def test_health_fails_when_nothing_answers(self, gateway_image):
        # Another program in the gateway's place: alive, but deaf.
        with started(gateway_image, options=["--entrypoint", '["sleep", "60"]']) as deaf:
            assert await asyncio.to_thread(deaf.health) != 0

    async def test_several_workers_share_the_little_that_is_writable(self, start_gateway, engine):
        gateway = await start_gateway(engine.url, workers=2)
        for turn in range(4):
            response = await gateway.http.post(CHAT, json=question(data_url(png()), f"question {turn}"))
            assert response.status_code == 200
        counted = 'gateway_requests_total{cache="miss",operation="/v1/chat/completions",status="200"} 4.0'
        async with httpx.AsyncClient() as http:
            # What workers count is up to a second old where they share it.
            deadline = asyncio.get_running_loop().time() + 5
            while counted not in (await http.get(gateway.metrics_url)).text:
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.05)

    async def test_any_user_will_do(self, start_gateway, engine):
        """OpenShift gives each project a number of its own, in group 0."""
        gateway = await start_gateway(engine.url, user=1_000_650_000, options=["--user", "1000650000:0"])
        assert (await gateway.http.post(CHAT, json=question(data_url(png())))).status_code == 200

    async def test_sigterm_drains_and_ends_with_0(self, start_gateway, engine):
        asked_to_stop = asyncio.Event()

        async def script(request, _):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(chunk("first"))
            await asked_to_stop.wait()
            await response.write(chunk("second") + DONE)
            return response

        engine.script = script
        gateway = await start_gateway(engine.url)
        async with gateway.http.stream("POST", CHAT, json=question(data_url(png()), stream=True)) as response:
            body = b""
            async for piece in response.aiter_bytes():
                body += piece
                if not asked_to_stop.is_set():
                    await asyncio.to_thread(gateway.container.signal, "TERM")
                    asked_to_stop.set()
        assert body.endswith(DONE)
        assert await asyncio.to_thread(gateway.container.wait) == 0

    def test_without_keys_it_says_what_to_do_and_ends_with_78(self, gateway_image):
        with started(gateway_image) as container:
            assert container.wait() == 78
            assert "keys create" in container.log

    def test_its_other_commands_run_too(self, gateway_image):
        out = podman("run", "--rm", "--network", "none", *LIMITS, *HARDENED, gateway_image, "--version")
        assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", out)
