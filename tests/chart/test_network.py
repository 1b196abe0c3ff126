"""Who can reach whom: the policies as a network plugin reads them, so the answer is the whole set's, not one line's."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from tests.support import chart
from tests.support.chart import at, merged

INTERNET, METADATA, OFFICE, PRIVATE = "1.1.1.1", "169.254.169.254", "203.0.113.5", "10.1.2.3"


def selected(selector, labels):
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def matches(peer, there):
    """`there` is an address, or a pod: {"labels": …, "namespace": …}."""
    if isinstance(there, str):
        block = peer.get("ipBlock")
        address = ip_address(there)
        return (
            bool(block)
            and address in ip_network(block["cidr"])
            and not any(address in ip_network(one) for one in block.get("except", []))
        )
    if "ipBlock" in peer:
        return False
    if "namespaceSelector" in peer:
        named = {"kubernetes.io/metadata.name": there["namespace"]}
        return selected(peer["namespaceSelector"], named) and selected(peer.get("podSelector", {}), there["labels"])
    return there["namespace"] == chart.NAMESPACE and selected(peer["podSelector"], there["labels"])


def allows(policies, pod, there, port, direction):
    """Whether traffic between this pod and `there` is let through on the pod's side; a pod without policy is open."""
    speaking = [one["spec"] for one in policies if selected(one["spec"]["podSelector"], pod["labels"])]
    speaking = [one for one in speaking if direction in one["policyTypes"]]
    rules, side = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    if not speaking:
        return True
    return any(
        ("ports" not in rule or any(one["port"] == port for one in rule["ports"]))
        and (side not in rule or any(matches(peer, there) for peer in rule[side]))
        for spec in speaking
        for rule in spec.get(rules, [])
    )


class Network:
    def __init__(self, manifests):
        self.policies = chart.kind(manifests, "NetworkPolicy")
        self.pods = {
            pod["metadata"]["labels"][chart.COMPONENT]: {
                "labels": pod["metadata"]["labels"],
                "namespace": chart.NAMESPACE,
            }
            for pod in chart.pod_templates(manifests).values()
        }
        self.pods["prometheus"] = {"labels": {}, "namespace": "monitoring"}
        self.pods["stranger"] = {"labels": {}, "namespace": chart.NAMESPACE}
        self.pods["neighbour"] = {"labels": {}, "namespace": "other"}
        self.pods["dns"] = {"labels": {"k8s-app": "kube-dns"}, "namespace": "kube-system"}
        self.pods["ingress"] = {"labels": {}, "namespace": "ingress-nginx"}

    def reaches(self, source, target, port):
        here, there = self.pods.get(source, source), self.pods.get(target, target)
        leaves = isinstance(here, str) or allows(self.policies, here, there, port, "Egress")
        enters = isinstance(there, str) or allows(self.policies, there, here, port, "Ingress")
        return leaves and enters


@pytest.fixture(scope="module")
def plain():
    return Network(chart.plain())


@pytest.mark.parametrize(
    ("source", "target", "port", "reached"),
    [
        ("neighbour", "gateway", 8080, True),
        (OFFICE, "gateway", 8080, True),
        ("neighbour", "gateway", 9090, False),
        ("prometheus", "gateway", 9090, True),
        ("gateway", "engine", 8000, True),
        ("prometheus", "engine", 8000, True),
        ("stranger", "engine", 8000, False),
        ("test", "engine", 8000, False),
        ("redis", "engine", 8000, False),
        ("gateway", "redis", 6379, True),
        ("engine", "redis", 6379, False),
        ("stranger", "redis", 6379, False),
        ("test", "gateway", 8080, True),
        ("gateway", "dns", 53, True),
        ("engine", "dns", 53, True),
        ("redis", "dns", 53, False),
        # Weights come from outside; pictures do not, unless their hosts are named.
        ("engine", INTERNET, 443, True),
        ("engine", INTERNET, 80, False),
        ("gateway", INTERNET, 443, False),
        ("gateway", METADATA, 80, False),
        ("redis", INTERNET, 443, False),
        ("test", INTERNET, 443, False),
        ("engine", "gateway", 8080, False),
    ],
)
def test_who_reaches_whom(plain, source, target, port, reached):
    assert plain.reaches(source, target, port) is reached


def test_a_pod_of_the_release_that_no_policy_knows_is_shut(plain):
    plain.pods["new"] = {
        "labels": {"app.kubernetes.io/name": "qwen3-vl", "app.kubernetes.io/instance": "shop"},
        "namespace": chart.NAMESPACE,
    }
    assert not plain.reaches("new", INTERNET, 443)
    assert not plain.reaches("neighbour", "new", 8080)


def test_pictures_are_fetched_from_public_addresses_only():
    network = Network(chart.plain(at("gateway.settings.image_allowed_hosts", ["*.example.com"])))
    assert network.reaches("gateway", INTERNET, 443)
    assert network.reaches("gateway", "2606:4700::1111", 443)
    for address in (METADATA, PRIVATE, "127.0.0.1", "100.64.0.1", "fd00::1", "::1", "64:ff9b::a01:203"):
        assert not network.reaches("gateway", address, 443), address


def test_an_engine_with_its_weights_in_the_image_reaches_nothing():
    network = Network(chart.render(preset="minimal"))
    assert not network.reaches("engine", INTERNET, 443)
    assert not network.reaches("engine", "dns", 53)


def test_an_air_gapped_engine_reaches_the_storage_and_nothing_else():
    network = Network(chart.render(preset="air-gapped"))
    assert network.reaches("engine", "10.30.0.5", 9000)
    assert not network.reaches("engine", "10.30.0.5", 443)
    assert not network.reaches("engine", INTERNET, 9000)


def test_in_production_only_the_ingress_controller_and_the_test_call_the_gateway():
    network = Network(chart.render(preset="production"))
    assert network.reaches("ingress", "gateway", 8080)
    assert network.reaches("test", "gateway", 8080)
    assert not network.reaches("neighbour", "gateway", 8080)
    assert network.reaches("gateway", "10.20.0.7", 6379)
    assert not network.reaches("gateway", "10.21.0.7", 6379)


def test_nodes_of_one_engine_talk_on_any_port():
    network = Network(chart.render(chart.MULTI_NODE))
    assert network.reaches("engine", "engine", 29501)


def test_an_inference_pools_gateway_reaches_engines():
    values = merged(
        chart.EVERYTHING,
        at(
            "exposure.inferencePool.from",
            [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}],
        ),
    )
    network = Network(chart.render(values))
    assert network.reaches("ingress", "engine", 8000)
    assert not network.reaches("neighbour", "engine", 8000)


def test_without_a_prometheus_nobody_reads_metrics():
    """An empty list of peers means everybody to Kubernetes."""
    network = Network(chart.plain(at("networkPolicy.monitoring", [])))
    for source in ("prometheus", "neighbour", OFFICE):
        assert not network.reaches(source, "gateway", 9090), source
    assert network.reaches("gateway", "engine", 8000)
    assert not network.reaches("prometheus", "engine", 8000)


def test_no_rule_has_an_empty_list_of_peers(manifests):
    for one in chart.kind(manifests, "NetworkPolicy"):
        for rule in one["spec"].get("ingress", []) + one["spec"].get("egress", []):
            assert rule.get("from", rule.get("to", "all")), one["metadata"]["name"]


def test_names_are_resolved_by_udp_and_tcp(manifests):
    policies = chart.kind(manifests, "NetworkPolicy")
    assert policies
    for one in policies:
        for rule in one["spec"].get("egress", []):
            ports = {(port["port"], port["protocol"]) for port in rule.get("ports", []) if "protocol" in port}
            if any(port == 53 for port, _ in ports):
                assert ports == {(53, "UDP"), (53, "TCP")}, one["metadata"]["name"]


def test_they_can_be_left_out():
    assert chart.kind(chart.plain(at("networkPolicy.enabled", False)), "NetworkPolicy") == []
