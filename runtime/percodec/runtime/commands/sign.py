"""`percodec sign`: keys, signatures of bundles, and what this machine makes of them."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from percodec.runtime.commands.arguments import whole
from percodec.runtime.trust.check import judge
from percodec.runtime.trust.keys import PrivateKey, generate
from percodec.runtime.trust.policy import find_policy
from percodec.runtime.trust.signature import sign as sign_bundle
from percodec.sdk.errors import UsageError


def configure_sign(parser: argparse.ArgumentParser) -> None:
    """The arguments of `percodec sign`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  percodec sign keygen fleet-2026 --out keys            keys/fleet-2026.key stays secret, keys/fleet-2026.pub goes to vehicles\n"
        "  percodec sign bundle bundles/road --key keys/fleet-2026.key --sequence 7 --expires 2027-12-31\n"
        "  percodec sign verify bundles/road --trust-policy trust.yaml\n"
        "A trust policy is YAML: unsigned: require|warn|off; keys: [{file: fleet-2026.pub, signs: [bundles, engines]}]; revoked: [KEYID];\n"
        "state: FILE, which remembers the latest release of each bundle. It is looked for in --trust-policy, PERCODEC_TRUST_POLICY and\n"
        "/etc/percodec/trust.yaml."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    keygen = actions.add_parser("keygen", help="make a key pair: NAME.key and NAME.pub")
    keygen.add_argument("name", metavar="NAME")
    keygen.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where to put them (default: here)")
    bundle = actions.add_parser("bundle", help="sign a bundle's folder, with the engines that lie in it")
    bundle.add_argument("bundle", type=Path, metavar="BUNDLE")
    bundle.add_argument("--key", type=Path, required=True, metavar="FILE", help="private key")
    bundle.add_argument("--sequence", default="0", metavar="N", help="number of this release, rising (default 0)")
    bundle.add_argument("--expires", metavar="DATE", help="last day, YYYY-MM-DD in UTC (default: never)")
    bundle.add_argument("--no-engines", action="store_true", help="leave the engines beside the bundle out")
    verify = actions.add_parser("verify", help="who vouches for a bundle by this machine's policy; ends with 1 where nobody does")
    verify.add_argument("bundle", type=Path, metavar="BUNDLE")
    verify.add_argument("--trust-policy", type=Path, metavar="FILE", help="policy to judge by (default: the machine's)")
    for action in (keygen, bundle, verify):
        action.add_argument("--json", action="store_true", help="print the result as JSON")


def sign(args: argparse.Namespace) -> int:
    """Do what `args.action` says."""
    if args.action == "keygen":
        private, public, key = generate(args.out, args.name)
        return _say(args, {"key": key, "private": str(private), "public": str(public)}, f"key {key}: {private} (keep it secret), {public}")
    if args.action == "bundle":
        sequence = whole(args.sequence, "--sequence", 0, 2**53 - 1)
        path = sign_bundle(
            args.bundle, PrivateKey.read(args.key), sequence=sequence, expires=_end_of(args.expires), engines=not args.no_engines
        )
        return _say(args, {"signature": str(path)}, f"signed: {path}")
    policy = find_policy(args.trust_policy)
    verdict = judge(args.bundle, policy)
    head = f"bundle {verdict.name} {verdict.digest[:12]}, policy: {policy.source}, unsigned: {policy.unsigned}"
    lines = [head, f"trusted by {', '.join(verdict.trusted)}, release {verdict.sequence}" if verdict.trusted else "trusted by nobody here"]
    _say(args, {**asdict(verdict), "policy": policy.source, "unsigned": policy.unsigned}, "\n".join([*lines, *verdict.why]))
    return 0 if verdict.trusted else 1


def _end_of(day: str | None) -> datetime | None:
    """The first moment after a day."""
    if day is None:
        return None
    try:
        return datetime.strptime(day, "%Y-%m-%d").replace(hour=23, minute=59, second=59, tzinfo=timezone.utc)
    except ValueError as error:
        raise UsageError(f"--expires {day!r}: write YYYY-MM-DD") from error


def _say(args: argparse.Namespace, value: dict[str, object], text: str) -> int:
    print(json.dumps(value) if args.json else text)
    return 0


__all__ = ["configure_sign", "sign"]
