from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from gateway.counting import count_pace, count_request, count_tokens
from gateway.errors import EngineRefused, EngineUnavailable, GatewayError, InternalError, InvalidRequest, QueueFull
from gateway.limits import BudgetSpent
from gateway.stages import Operation
from gateway.telemetry import TENANT

CHAT = Operation.CHAT


@pytest.fixture
def grown():
    """How much a series has grown since the test first asked for it."""
    start = {}

    def since(name, **labels):
        now = REGISTRY.get_sample_value(name, labels) or 0
        return now - start.setdefault((name, *sorted(labels.items())), now)

    return since


def count(error=None, operation=CHAT, status=200, cache="miss"):
    count_request(operation, status=status, cache=cache, tenant="nobody", error=error, elapsed_s=0.1)


@pytest.mark.parametrize(
    ("error", "error_class", "error_type"),
    [
        (InvalidRequest("bad", code="image_too_large"), "client", "image_too_large"),
        (InvalidRequest("bad"), "client", "invalid_request"),
        (BudgetSpent("daily_tokens", "no more"), "limit", "insufficient_quota"),
        (QueueFull("full"), "overload", "queue_full"),
        (EngineUnavailable("gone"), "engine", "engine_unavailable"),
        (InternalError("oh"), "gateway", "internal_error"),
        (EngineRefused(400, "no", kind="x", param=None, code="whatever the engine says"), "client", "engine_refused"),
        (EngineRefused(500, "no", kind="x", param=None, code="whatever the engine says"), "engine", "engine_refused"),
    ],
)
def test_an_error_is_counted_by_whose_fault_it_is_and_what_it_was(grown, error, error_class, error_type):
    labels = {"operation": "/v1/chat/completions", "error_class": error_class, "error_type": error_type}
    grown("gateway_request_errors_total", **labels)
    grown("gateway_tenant_requests_total", tenant="other", outcome=error_class, cache="miss")
    count(error, status=error.status)
    assert grown("gateway_request_errors_total", **labels) == 1
    assert grown("gateway_tenant_requests_total", tenant="other", outcome=error_class, cache="miss") == 1


def test_every_error_of_ours_says_whose_fault_it_is():
    def subclasses(kind):
        for child in kind.__subclasses__():
            yield child
            yield from subclasses(child)

    for kind in subclasses(GatewayError):
        if kind is not EngineRefused and kind.status >= 500 and kind.code != "not_cached":
            assert kind.fault_of not in {"client", "limit"}, kind


def test_errors_of_ours_have_series_before_they_happen():
    labels = {"operation": "/predict", "error_class": "engine", "error_type": "engine_timeout"}
    assert REGISTRY.get_sample_value("gateway_request_errors_total", labels) is not None


def test_a_client_that_left_is_no_error_and_no_success(grown):
    grown("gateway_tenant_requests_total", tenant="other", outcome="client_gone", cache="bypass")
    count(status=499, cache="bypass")
    assert grown("gateway_tenant_requests_total", tenant="other", outcome="client_gone", cache="bypass") == 1


def test_the_list_of_models_and_unknown_paths_are_no_generations(grown):
    name = "gen_ai_server_request_duration_seconds_count"
    grown(name, gen_ai_operation_name="chat", error_type="")
    grown("gateway_requests_total", operation="other", status="404", cache="bypass")
    count(operation=Operation.MODELS)
    count(operation=None, status=404, cache="bypass")
    assert grown(name, gen_ai_operation_name="chat", error_type="") == 0
    assert grown("gateway_requests_total", operation="other", status="404", cache="bypass") == 1
    count(operation=Operation.PREDICT)
    assert grown(name, gen_ai_operation_name="chat", error_type="") == 1


def test_tokens_are_the_tenants_as_long_as_tenants_have_names(grown):
    TENANT.offer(["counting-test"])
    for kind in ("input", "output", "image"):
        grown("gateway_tokens_total", tenant="counting-test", gen_ai_token_type=kind)
    count_tokens("counting-test", prompt=100, completion=7, image=64, images=1)
    count_tokens("counting-test", prompt=10, completion=1, image=0, images=0)
    got = [
        grown("gateway_tokens_total", tenant="counting-test", gen_ai_token_type=kind)
        for kind in ("input", "output", "image")
    ]
    assert got == [110, 8, 64]


class TestPace:
    NAME = "gen_ai_server_time_per_output_token_seconds"

    def paced(self, *arrivals):
        count_pace(CHAT, [at for at, _ in arrivals], [b"data: x\n\n" * events for _, events in arrivals])

    def test_the_mean_is_over_events_not_over_chunks(self, grown):
        for name in (f"{self.NAME}_sum", f"{self.NAME}_count", "gateway_stream_longest_gap_seconds_sum"):
            grown(name, gen_ai_operation_name="chat")
        self.paced((10.0, 1), (10.5, 4), (12.0, 6))
        assert grown(f"{self.NAME}_count", gen_ai_operation_name="chat") == 1
        assert grown(f"{self.NAME}_sum", gen_ai_operation_name="chat") == pytest.approx(0.2)
        assert grown("gateway_stream_longest_gap_seconds_sum", gen_ai_operation_name="chat") == pytest.approx(1.5)

    @pytest.mark.parametrize("arrivals", [(), ((10.0, 1),), ((10.0, 5),)])
    def test_of_a_single_arrival_there_is_nothing_to_tell(self, grown, arrivals):
        grown(f"{self.NAME}_count", gen_ai_operation_name="chat")
        self.paced(*arrivals)
        assert grown(f"{self.NAME}_count", gen_ai_operation_name="chat") == 0

    def test_an_unknown_path_has_a_name_too(self):
        count_pace(None, [1.0, 2.0], [b"data: x\n\n"] * 2)

    def test_pieces_that_were_not_kept_count_as_one_event(self, grown):
        grown(f"{self.NAME}_sum", gen_ai_operation_name="chat")
        count_pace(CHAT, [1.0, 2.0, 3.0, 4.0], [b"data: x\n\n"] * 2)
        assert grown(f"{self.NAME}_sum", gen_ai_operation_name="chat") == pytest.approx(1.0)
