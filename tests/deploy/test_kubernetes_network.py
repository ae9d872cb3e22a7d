"""The network policies let through what the parts need of each other, and nothing else."""

from __future__ import annotations

import functools
import ipaddress
from dataclasses import dataclass, field
from typing import Any

import pytest
from deploy.manifests import Manifest, made_for_a_run, of_kind, overlay, pods


@dataclass(frozen=True, slots=True)
class Place:
    """Something with an address: a pod here, a pod of another namespace, or a machine elsewhere."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = "crosstie"
    ip: str | None = None
    """Of what is no pod."""


DNS = Place({"k8s-app": "kube-dns"}, namespace="kube-system")
INGRESS = Place({"app.kubernetes.io/name": "ingress-nginx"}, namespace="ingress-nginx")
PROMETHEUS = Place({"app.kubernetes.io/name": "prometheus"}, namespace="monitoring")
STRANGER = Place({"app.kubernetes.io/name": "stranger"}, namespace="default")
STORE = Place(ip="203.0.113.7")
ROLES = Place(ip="169.254.169.254")
KUBERNETES_API = Place(ip="10.0.0.1")
OPERATOR = Place({"app.kubernetes.io/name": "dask-kubernetes-operator"})
PREFECT = Place({"app.kubernetes.io/name": "prefect-server", "app.kubernetes.io/component": "server"})


@functools.cache
def policies(of: str) -> list[Manifest]:
    return list(of_kind(of, "NetworkPolicy").values())


@functools.cache
def places(of: str) -> dict[str, Place]:
    """Pods of an overlay by name, and what is round them."""
    found = {name: Place(pod["metadata"]["labels"]) for name, pod in pods(overlay(of)).items()}
    if of == "gpu-per-run":  # pods that a run has the operator make
        run = made_for_a_run()
        for name, component, part in (
            ("dask-scheduler", "scheduler", "scheduler"),
            ("dask-default", "worker", "reader"),
            ("dask-matcher-gpu", "worker", "matcher"),
        ):
            found[name] = Place(run[part]["metadata"]["labels"] | {"dask.org/component": component})
    return {
        "dns": DNS, "ingress": INGRESS, "prometheus": PROMETHEUS, "stranger": STRANGER, "store": STORE,
        "roles": ROLES, "kubernetes": KUBERNETES_API, "operator": OPERATOR, "prefect-server": PREFECT,
    } | found  # fmt: skip


def selected(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "In"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


def is_peer(peer: dict[str, Any], place: Place) -> bool:
    if "ipBlock" in peer:
        if place.ip is None:
            return False
        address, block = ipaddress.ip_address(place.ip), peer["ipBlock"]
        blocks = (ipaddress.ip_network(each) for each in block.get("except", []))
        return address in ipaddress.ip_network(block["cidr"]) and not any(address in each for each in blocks)
    if place.ip is not None:
        return False
    here = {"kubernetes.io/metadata.name": place.namespace}
    if "namespaceSelector" in peer:
        if not selected(peer["namespaceSelector"], here):
            return False
    elif place.namespace != "crosstie":
        return False
    return selected(peer.get("podSelector", {}), place.labels)


def one_way(of: str, way: str, this: Place, other: Place, port: int) -> bool:
    """Whether `this`, of our namespace, may be reached by `other` (Ingress) or may reach it (Egress)."""
    if this.namespace != "crosstie" or this.ip is not None:
        return True
    bound = False
    for policy in policies(of):
        spec = policy["spec"]
        if way not in spec["policyTypes"] or not selected(spec["podSelector"], this.labels):
            continue
        bound = True
        for rule in spec.get(way.lower(), []):
            peers = rule.get("from" if way == "Ingress" else "to")
            ports = rule.get("ports")
            if (peers is None or any(is_peer(peer, other) for peer in peers)) and (
                ports is None or any(p["port"] <= port <= p.get("endPort", p["port"]) for p in ports)
            ):
                return True
    return not bound


def passes(of: str, source: str, target: str, port: int) -> bool:
    a, b = places(of)[source], places(of)[target]
    return one_way(of, "Egress", a, b, port) and one_way(of, "Ingress", b, a, port)


WAYS = {
    ("prefect-worker", "prefect-server", 4200), ("listener", "prefect-server", 4200),
    ("deploy", "prefect-server", 4200), ("prefect-worker", "dask-scheduler", 8786),
    ("prefect-worker", "store", 443), ("dask-default", "store", 443), ("site", "store", 443),
    ("listener", "store", 443), ("dask-default", "dask-scheduler", 8786),
    ("dask-scheduler", "dask-default", 8789), ("dask-default", "dask-default", 8789),
    ("operator", "dask-scheduler", 8786), ("operator", "dask-scheduler", 8787),
    ("operator", "kubernetes", 443),    ("prefect-server", "store", 5432),
}  # fmt: skip
MATCHER_WAYS = {
    ("{}", "dask-scheduler", 8786), ("dask-scheduler", "{}", 8789), ("{}", "dask-default", 8789),
    ("dask-default", "{}", 8789),
}  # fmt: skip
OUTSIDE_WAYS = {("ingress", "listener", 8090), ("ingress", "site", 8091)}
LOCAL_WAYS = {
    ("prefect-server", "postgres", 5432), ("prefect-worker", "s3", 8333), ("dask-default", "s3", 8333),
    ("site", "s3", 8333),
}  # fmt: skip

PORTS = (53, 80, 443, 4200, 5432, 8080, 8090, 8091, 8333, 8786, 8787, 8788, 8789, 9101)


def wanted(of: str) -> set[tuple[str, str, int]]:
    matcher = "dask-matcher-gpu" if of.startswith("gpu") else "dask-matcher"
    ways = WAYS | {(a.format(matcher), b.format(matcher), port) for a, b, port in MATCHER_WAYS}
    ways |= {(matcher, matcher, 8789)} | (LOCAL_WAYS if of == "local" else OUTSIDE_WAYS)
    if of == "gpu-per-run":
        ways |= {("prefect-worker", "kubernetes", 443), ("prefect-worker", "roles", 443)}
    return ways


@pytest.mark.parametrize("of", ["local", "cpu", "gpu", "gpu-per-run"])
def test_only_what_is_needed_passes(of: str) -> None:
    elsewhere = {name for name, place in places(of).items() if place.namespace != "crosstie" or place.ip}
    found = {
        (source, target, port)
        for source in places(of)
        for target in places(of)
        for port in PORTS
        if {source, target} - elsewhere and passes(of, source, target, port)
    }
    # Every pod may ask for names.
    inside = places(of).keys() - elsewhere
    names = {(source, "dns", 53) for source in inside}
    assert names <= found
    # The operator and Prefect's server go by port alone: where Kubernetes and PostgreSQL are differs.
    loose = {
        (source, target, port)
        for source, target, port in found
        if target in elsewhere and (source in {"operator", "prefect-server"} or target == "kubernetes")
    }
    if of == "gpu-per-run":
        loose |= {way for way in found if way[0] == "prefect-worker" and way[2] == 443}
    assert found - names - loose == wanted(of) - loose
    assert wanted(of) <= found


def test_nobody_reaches_the_role_of_the_machine() -> None:
    for of in ("local", "cpu", "gpu"):
        for source in places(of).keys() - {"operator", "prefect-server", "roles"}:
            if places(of)[source].namespace == "crosstie" and places(of)[source].ip is None:
                assert not passes(of, source, "roles", 443)
                assert not passes(of, source, "roles", 80)
