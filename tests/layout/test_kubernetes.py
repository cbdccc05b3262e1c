"""The jobs for Kubernetes: their commands have these arguments, and ports, files and numbers of workers are those that they name."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from percodec.sdk import cli

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(ROOT.glob("*/examples/kuberay-*.yaml"))
SERVE = next(path for path in EXAMPLES if path.stem == "kuberay-serve")


def parsed(job: Any) -> tuple[str, argparse.Namespace]:
    """The command's name and its arguments, by its own parser. Raises `UsageError`."""
    program, name, *words = shlex.split(job["spec"]["entrypoint"])
    assert program == "percodec"
    (command,) = [one for one in cli._commands()[0] if one.name == name]
    return name, cli.parser_of(command).parse_args(words)


def groups(job: Any) -> list[Any]:
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_commands_images_and_versions(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    job = next(yaml.safe_load_all(text))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    name, args = parsed(job)
    assert "ray" in (args.engine if name == "serve" else args.workers)
    assert yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]["RAY_ADDRESS"] == "auto"
    assert len({group["template"]["spec"]["containers"][0]["image"] for group in groups(job)}) == 1
    (pinned,) = re.findall(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.optional-dependencies]")[1]
    for extra in re.findall(r"percodec\[([\w,]+)\]", text)[0].split(","):
        assert f"\n{extra} = [" in extras


def test_the_service_leads_to_the_server() -> None:
    job, service = yaml.safe_load_all(SERVE.read_text(encoding="utf-8"))
    name, args = parsed(job)
    assert name == "serve"
    head, workers = groups(job)
    (container,) = head["template"]["spec"]["containers"]
    bound = {kind: int(getattr(args, kind).rpartition(":")[2]) for kind in ("grpc", "http")}
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == bound
    assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == bound
    assert service["spec"]["selector"].items() <= head["template"]["metadata"]["labels"].items()
    folders = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert [str(Path(file).parent) for file in (args.tls_cert, args.tls_key, args.client_ca)] == folders * 3
    assert args.replicas == f"{workers['minReplicas']}..{workers['maxReplicas']}"
    assert workers["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == args.threads
