"""`percodec bundle`: install releases of bundles on a vehicle, switch between them, go back."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from percodec.runtime.trust.policy import find_policy
from percodec.runtime.trust.store import Release, activate, install, releases, rollback


def configure_bundle(parser: argparse.ArgumentParser) -> None:
    """The arguments of `percodec bundle`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  percodec bundle install /media/usb/road /var/lib/percodec/bundles\n"
        "  percodec bundle activate /var/lib/percodec/bundles road 3982f12bb620\n"
        "  percodec run /dev/video0 --bundle /var/lib/percodec/bundles/road/current\n"
        "A process that runs keeps the release it opened. Signatures are checked by the trust policy (percodec sign --help)."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    put = actions.add_parser("install", help="copy a bundle into a store, beside what runs")
    put.add_argument("source", type=Path, metavar="BUNDLE")
    switch = actions.add_parser("activate", help="make an installed release the current one, in one step")
    back = actions.add_parser("rollback", help="make the release that ran before the current one again")
    show = actions.add_parser("list", help="what is installed, and what is current")
    for action in (put, switch, back, show):
        action.add_argument("store", type=Path, metavar="STORE", help="folder of installed bundles")
        action.add_argument("--json", action="store_true", help="print the result as JSON")
    for action in (switch, back):
        action.add_argument("name", metavar="NAME", help="the bundle's name")
    switch.add_argument("release", metavar="RELEASE", help="beginning of its digest, at least 4 digits")
    show.add_argument("name", nargs="?", metavar="NAME", help="of this bundle alone")
    for action in (put, switch, back):
        action.add_argument("--trust-policy", type=Path, metavar="FILE", help="policy of signatures (default: the machine's)")


def bundle(args: argparse.Namespace) -> int:
    """Do what `args.action` says."""
    if args.action == "list":
        found = releases(args.store, args.name)
        print(json.dumps([asdict(release) for release in found]) if args.json else "\n".join(map(_line, found)) or "nothing is installed")
        return 0
    policy = find_policy(args.trust_policy)
    if args.action == "install":
        release, said = install(args.store, args.source, policy)
    elif args.action == "activate":
        release, said = activate(args.store, args.name, args.release, policy)
    else:
        release, said = rollback(args.store, args.name, policy)
    if said:
        print(said, file=sys.stderr)
    print(json.dumps(asdict(release)) if args.json else _line(release))
    return 0


def _line(release: Release) -> str:
    state = "current" if release.current else "previous" if release.previous else "installed"
    return f"{release.name}  {release.release}  {state}"


__all__ = ["bundle", "configure_bundle"]
