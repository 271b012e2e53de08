"""`deploy/kubernetes` as a cluster would get it, and what must be true of it. Every check raises Invalid.

kustomize renders; Kubernetes' own schemas are those of the package kubernetes-validate, the ones of custom resources
are in `schemas.yaml`: the fields that are used here, and no others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.compose import ROOT

DEPLOY = ROOT / "deploy" / "kubernetes"
KUBECTL = f"{sys.prefix}/bin/kubectl"
VERSIONS = ("1.29", kubernetes_validate.latest_version())  # of Kubernetes: the oldest that is claimed, and the newest
Object = dict[str, Any]


class Invalid(Exception):
    """What is wrong with the manifests, in one line."""


def render(folder: Path) -> list[Object]:
    """The objects of a kustomization."""
    return list(yaml.load_all(_rendered(folder.resolve()), yaml.CSafeLoader))


@cache
def _rendered(folder: Path) -> str:
    done = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise Invalid(done.stderr.strip())
    return done.stdout


def checked(folder: Path) -> list[Object]:
    """The objects of a kustomization, each of them valid, every patch and image of it with something to change."""
    objects = render(folder)
    for each in objects:
        check_schema(each)
    check_targets(folder, objects)
    return objects


@cache
def own_schemas() -> Mapping[tuple[str, str], Any]:
    """(apiVersion, kind) → JSON schema of a custom resource."""
    documents = yaml.safe_load_all((Path(__file__).with_name("schemas.yaml")).read_text())
    return {(document["apiVersion"], document["kind"]): document["schema"] for document in documents}


def check_schema(item: Object) -> None:
    name = f"{item.get('kind')}/{item.get('metadata', {}).get('name')}"
    try:
        known = [item]
        if own := own_schemas().get((item["apiVersion"], item["kind"])):
            jsonschema.validate(item, own)
            meta = {"name": item["metadata"]["name"]}  # the Pods in it are Kubernetes' own
            known = [{"apiVersion": "v1", "kind": "PodTemplate", "metadata": meta, "template": p} for p in pods(item)]
        for each in known:
            for version in VERSIONS:
                kubernetes_validate.validate(each, version, strict=True)
    except jsonschema.ValidationError as error:  # kubernetes-validate's is one
        raise Invalid(f"{name}: {'.'.join(map(str, error.path))}: {error.message}") from None
    except kubernetes_validate.SchemaNotFoundError as error:
        raise Invalid(f"{name}: {error.message}") from None


def check_targets(folder: Path, objects: list[Object], suffix: str = "") -> None:
    """kustomize itself passes over a target or an image that is not there.

    `objects`: what the kustomization makes, or if it is a component what the one makes that takes it in.
    """
    content = yaml.safe_load((folder / "kustomization.yaml").read_text())
    suffix = content.get("nameSuffix", suffix)
    for patch in content.get("patches", ()):
        target = patch.get("target", {})
        if unknown := target.keys() - {"kind", "name"}:
            raise Invalid(f"{folder}: this check knows no patch by {sorted(unknown)}")
        name = target["name"] + suffix if "name" in target else None
        if target and not select(objects, target["kind"], name):
            raise Invalid(f"{folder}: a patch has no target: {target}")
    used = {container["image"].rpartition(":")[0] for each in objects for container in containers(each)}
    for image in content.get("images", ()):
        if image.get("newName", image["name"]) not in used:
            raise Invalid(f"{folder}: no container has the image {image['name']}")
    for path in content.get("components", ()):
        check_targets(folder / path, objects, suffix)
    for inner in (folder / path for path in content.get("resources", ())):
        if inner.is_dir():
            check_targets(inner, render(inner))


def select(objects: list[Object], kind: str, name: str | None = None) -> list[Object]:
    return [each for each in objects if each["kind"] == kind and name in (None, each["metadata"]["name"])]


def one(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = select(objects, kind, name)
    return found


def pods(item: Object) -> list[Object]:
    """What an object makes Pods from: {metadata, spec}, each."""
    if item["kind"] == "Pod":
        return [item]
    spec = item.get("spec", {})
    if item["kind"] == "RayJob":
        cluster = spec["rayClusterSpec"]
        return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    return [spec["template"]] if "template" in spec else []


def containers(item: Object) -> list[Object]:
    return [container for found in pods(item) for container in found["spec"]["containers"]]


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return selector.items() <= labels.items()


def check_references(objects: list[Object]) -> None:
    """Every selector selects Pods, every name of a port, a volume, a claim or a Deployment is one that is there."""
    made = [found for each in objects for found in pods(each)]
    for where, selector in selectors(objects):
        if not any(matches(selector, each["metadata"].get("labels", {})) for each in made):
            raise Invalid(f"{where}: no Pod has the labels {selector}")
    for each in objects:
        for template in pods(each):
            _check_pod(each["metadata"]["name"], template["spec"], objects)
        if scaled := each.get("spec", {}).get("scaleTargetRef"):
            one_named(objects, "Deployment", scaled["name"], each)
    for service in select(objects, "Service"):
        for port in service["spec"]["ports"]:
            _check_port(service, port["targetPort"], service["spec"]["selector"], made)
    for monitor in select(objects, "ServiceMonitor"):
        labels = monitor["spec"]["selector"]["matchLabels"]
        found = [each for each in select(objects, "Service") if matches(labels, each["metadata"]["labels"])]
        if len(found) != 1:
            raise Invalid(f"ServiceMonitor: {len(found)} Services have the labels {labels}: each would be scraped")
        for endpoint in monitor["spec"]["endpoints"]:
            if endpoint["port"] not in {port["name"] for port in found[0]["spec"]["ports"]}:
                raise Invalid(f"ServiceMonitor: the Service has no port {endpoint['port']}")


def selectors(objects: list[Object]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """(what has it, labels) of everything that selects Pods."""
    for each in objects:
        name, spec = f"{each['kind']}/{each['metadata']['name']}", each.get("spec", {})
        if each["kind"] == "Service":
            yield name, spec["selector"]
        if each["kind"] in ("Deployment", "PodDisruptionBudget"):
            yield name, spec["selector"]["matchLabels"]
        if each["kind"] == "NetworkPolicy":
            yield name, spec["podSelector"]["matchLabels"]
            peers = [*spec.get("ingress", ()), *spec.get("egress", ())]
            for peer in [one for rule in peers for one in (*rule.get("from", ()), *rule.get("to", ()))]:
                if "podSelector" in peer:
                    yield name, peer["podSelector"]["matchLabels"]
        for made in pods(each):
            for spread in made["spec"].get("topologySpreadConstraints", ()):
                yield name, spread["labelSelector"]["matchLabels"]


def _check_pod(name: str, spec: Object, objects: list[Object]) -> None:
    volumes = {volume["name"] for volume in spec["volumes"]}
    for container in spec["containers"]:
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        if volumes != mounted:
            raise Invalid(f"{name}: volumes and mounts differ: {sorted(volumes ^ mounted)}")
        ports = {port["name"] for port in container.get("ports", ())}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in container and container[probe]["httpGet"]["port"] not in ports:
                raise Invalid(f"{name}: {probe}: no port {container[probe]['httpGet']['port']}")
    for volume in spec["volumes"]:
        if claim := volume.get("persistentVolumeClaim"):
            one_named(objects, "PersistentVolumeClaim", claim["claimName"], {"kind": name})


def _check_port(service: Object, port: str, selector: Mapping[str, str], made: list[Object]) -> None:
    for each in made:
        if matches(selector, each["metadata"].get("labels", {})):
            known = {known["name"] for one in each["spec"]["containers"] for known in one.get("ports", ())}
            if port not in known:
                raise Invalid(f"Service/{service['metadata']['name']}: no port {port} among {sorted(known)}")


def one_named(objects: list[Object], kind: str, name: str, user: Object) -> None:
    if len(select(objects, kind, name)) != 1:
        raise Invalid(f"{user['kind']}: there is no {kind} {name}")


def secrets_used(objects: list[Object]) -> Iterator[tuple[str, str]]:
    """(name, key) of every entry of a Secret that something mounts or reads."""
    for each in objects:
        for volume in (volume for made in pods(each) for volume in made["spec"]["volumes"]):
            sources = [volume.get("secret"), *(one["secret"] for one in volume.get("projected", {}).get("sources", ()))]
            for source in filter(None, sources):
                yield from ((source.get("secretName") or source["name"], item["key"]) for item in source["items"])
        for endpoint in each.get("spec", {}).get("endpoints", ()):
            secret = endpoint["tlsConfig"]["ca"]["secret"]
            yield secret["name"], secret["key"]


def combined(folder: Path, overlay: str, *components: str, deploy: Path = DEPLOY) -> Path:
    """A kustomization of one's own in a new folder: an overlay of ours, with components of ours."""
    folder.mkdir(parents=True)
    content = {
        "resources": [os.path.relpath(deploy / "overlays" / overlay, folder)],
        "components": [os.path.relpath(deploy / "components" / name, folder) for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return folder
