"""Signed, unsigned, foreign, expired, rolled back, revoked: what each policy makes of a bundle, and that nothing of it is read before."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="needs the sign extra")

from support.tiny_bundle import encoder_graph, make_bundle

from percodec.runtime.engines.open import open_engine
from percodec.runtime.session import Demand, open_bundle
from percodec.runtime.trust.check import admit, judge
from percodec.runtime.trust.keys import PrivateKey, PublicKey, generate
from percodec.runtime.trust.policy import Policy, find_policy, read_policy
from percodec.runtime.trust.signature import sign, signatures_in
from percodec.sdk.bundle import Bundle
from percodec.sdk.bundle.engines import EngineKey, write_engine
from percodec.sdk.cli import main
from percodec.sdk.errors import BundleError, EngineError, TrustError, UsageError

END = datetime(2999, 1, 1, tzinfo=timezone.utc)
ALL = frozenset(["bundles", "engines"])


@pytest.fixture(autouse=True)
def no_policy_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PERCODEC_TRUST_POLICY", raising=False)
    monkeypatch.setattr("percodec.runtime.trust.policy.SYSTEM", tmp_path / "none.yaml")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("trust") / "tiny").path


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pristine, tmp_path / "tiny")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PrivateKey]:
    place = tmp_path_factory.mktemp("keys")
    return {name: PrivateKey.read(generate(place, name)[0]) for name in ("fleet", "other", "vehicle")}


def policy(unsigned: str, *trusted: PrivateKey, **more: object) -> Policy:
    return Policy(unsigned, tuple((key.public, ALL) for key in trusted), source="the test's policy", **more)  # type: ignore[arg-type]


CASES = {
    "signed": "",
    "unsigned": "it has no signature",
    "wrong key": "is not trusted here",
    "expired": "which is past",
    "rolled back": r"it is release 3 of tiny, and release 5 ran here before",
    "revoked": "was revoked",
    "altered statement": "did not make the signature that bears its name",
    "another bundle's signature": "signed another bundle",
    "damaged signature": "is damaged",
    "removed key": "is not trusted here",
}
ROWS = {
    "signed by a trusted key": "signed",
    "not signed": "unsigned",
    "signed by another key": "wrong key",
    "signed, and the signature expired": "expired",
    "signed, and the statement was altered": "altered statement",
    "the signature is another bundle's": "another bundle's signature",
    "the signature is damaged": "damaged signature",
    "signed by a key that was revoked": "revoked",
    "signed anew by a key that was taken out of the policy": "removed key",
    "an earlier release than one that ran here": "rolled back",
}


def prepared(case: str, folder: Path, keys: dict[str, PrivateKey], unsigned: str, tmp_path: Path) -> Policy:
    fleet, state = keys["fleet"], tmp_path / "state.json"
    if case != "unsigned":
        signer = keys["other"] if case == "wrong key" else fleet
        sign(folder, signer, sequence=3, expires=END if case == "expired" else None)
    path = folder / "signature" / f"{fleet.public.id}.json"
    if case == "rolled back":
        state.write_text('{"tiny": 5}')
    if case == "altered statement":
        value = json.loads(path.read_text())
        value["statement"]["sequence"] = 9
        path.write_text(json.dumps(value))
    if case == "another bundle's signature":
        elsewhere = make_bundle(tmp_path / "else", name="tiny", gain=1.1).path
        sign(elsewhere, fleet, sequence=3)
        shutil.copyfile(elsewhere / "signature" / path.name, path)
    if case == "damaged signature":
        path.write_text(path.read_text()[:-40])
    if case == "removed key":
        sign(folder, fleet, sequence=4)
        return policy(unsigned, keys["vehicle"], state=state)
    return policy(unsigned, fleet, state=state, revoked=frozenset([fleet.public.id] if case == "revoked" else []))


@pytest.mark.parametrize("unsigned", ["require", "warn", "off"])
@pytest.mark.parametrize(("case", "why"), CASES.items(), ids=CASES.keys())
def test_what_each_policy_makes_of_a_bundle(
    case: str, why: str, unsigned: str, folder: Path, keys: dict[str, PrivateKey], tmp_path: Path
) -> None:
    rules = prepared(case, folder, keys, unsigned, tmp_path)
    if case == "expired":
        verdict = judge(folder, rules, END)
        assert not verdict.trusted
        assert why in verdict.why[0]
        assert judge(folder, rules, END - timedelta(seconds=1)).trusted == (keys["fleet"].public.id,)
        return
    if case == "signed":
        verdict, said = admit(folder, rules)
        assert (verdict.trusted, said) == ((keys["fleet"].public.id,), None)
        assert json.loads((tmp_path / "state.json").read_text()) == {"tiny": 3}
        assert verdict.engines == ({} if unsigned == "require" else None)
    elif unsigned == "require":
        with pytest.raises(TrustError, match=why) as caught:
            admit(folder, rules)
        assert "the test's policy requires it" in str(caught.value)
    else:
        _, said = admit(folder, rules)
        assert (said is None) == (unsigned == "off")
        assert said is None or why.replace(r"\ ", " ").split(",")[0] in said


@pytest.mark.parametrize(("row", "case"), ROWS.items())
def test_the_table_says_what_happens(
    row: str, case: str, folder: Path, keys: dict[str, PrivateKey], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SECURITY.md, row by row: a run of each bundle under each policy."""
    if case == "expired":
        monkeypatch.setattr("percodec.runtime.trust.check.datetime", Later)
    lines = (Path(__file__).parents[2] / "SECURITY.md").read_text(encoding="utf-8").splitlines()
    cells = next(line for line in lines if line.startswith(f"| {row} |")).strip("| ").split(" | ")[1:]
    for unsigned, cell in zip(("require", "warn", "off"), cells, strict=True):
        rules = prepared(case, folder, keys, unsigned, tmp_path)
        monkeypatch.setattr("percodec.runtime.session.find_policy", lambda path, rules=rules: rules)
        try:
            bundle = open_bundle(folder)
        except TrustError:
            found = "refused"
        else:
            found = "runs" + " apart" * (not bundle.vouched) + ", with a note" * bool(bundle.notes)
        assert found == cell, unsigned
        shutil.rmtree(folder / "signature", ignore_errors=True)
        shutil.rmtree(tmp_path / "else", ignore_errors=True)
    assert sum(line.count("| runs") > 0 for line in lines) == len(ROWS)


class Later(datetime):
    """A clock that shows the last day."""

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return END


def test_nothing_is_parsed_of_what_is_refused(
    folder: Path, keys: dict[str, PrivateKey], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "trust.yaml").write_text("unsigned: require\n")
    monkeypatch.setattr("percodec.sdk.bundle.bundle.checked_graph", lambda *_: pytest.fail("a model was read"), raising=False)
    monkeypatch.setattr("percodec.sdk.bundle.bundle.check_graph", lambda *_: pytest.fail("a model was read"), raising=False)
    with pytest.raises(TrustError, match="is not signed by a key that is trusted here"):
        open_bundle(folder, Demand(tmp_path / "trust.yaml"))


def host_engine(bundle: Bundle, data: bytes) -> Path:
    import hashlib

    sha = hashlib.sha256(bundle.graph("encoder")).hexdigest()
    return write_engine(bundle.path, EngineKey(bundle.digest, "encoder", sha, sha, "int8", "host", "ort", "20", "", "", (), ()), data, {})


def test_engines_run_where_their_records_are_signed(folder: Path, keys: dict[str, PrivateKey], tmp_path: Path) -> None:
    host_engine(Bundle.open(folder), encoder_graph(gain=1.001))
    sign(folder, keys["fleet"], sequence=1)
    rules = write_policy(tmp_path, keys, "require")
    assert open_engine(open_bundle(folder, Demand(rules)), "encoder").precision == "int8"
    host_engine(Bundle.open(folder), encoder_graph(gain=1.5))  # somebody writes another one beside the signed bundle
    bundle = open_bundle(folder, Demand(rules))
    with pytest.raises(EngineError, match="is not among the engines that are signed here"):
        open_engine(bundle, "encoder")
    assert open_engine(bundle, "encoder", backend="ort:fp32").precision == "fp32"
    sign(folder, keys["vehicle"], sequence=0)  # built on the vehicle, signed by the vehicle's own key
    assert open_engine(open_bundle(folder, Demand(rules)), "encoder").precision == "int8"


def write_policy(place: Path, keys: dict[str, PrivateKey], unsigned: str) -> Path:
    _, serialization = __import__("percodec.runtime.trust.keys", fromlist=["crypto"]).crypto()
    for name in ("fleet", "vehicle"):
        pem = keys[name].public._key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (place / f"{name}.pub").write_bytes(pem)
    lines = [f"unsigned: {unsigned}", "keys:", "  - file: fleet.pub", "  - {file: vehicle.pub, signs: [engines]}"]
    (place / "trust.yaml").write_text("\n".join(lines) + "\n")
    return place / "trust.yaml"


def test_a_key_for_engines_does_not_vouch_for_bundles(folder: Path, keys: dict[str, PrivateKey], tmp_path: Path) -> None:
    sign(folder, keys["vehicle"], sequence=1)
    with pytest.raises(TrustError, match="is not signed by a key that is trusted here"):
        open_bundle(folder, Demand(write_policy(tmp_path, keys, "require")))


def test_several_keys_and_rotation(folder: Path, keys: dict[str, PrivateKey]) -> None:
    sign(folder, keys["fleet"], sequence=1)
    sign(folder, keys["other"], sequence=2)
    both = policy("require", keys["fleet"], keys["other"])
    assert judge(folder, both).trusted == tuple(sorted((keys["fleet"].public.id, keys["other"].public.id)))
    assert judge(folder, both).sequence == 2
    assert judge(folder, policy("require", keys["other"])).trusted == (keys["other"].public.id,), "the old key is gone from the policy"


def test_a_pinned_digest(folder: Path) -> None:
    digest = Bundle.open(folder).digest
    assert open_bundle(folder, Demand(digest=digest[:12])).digest == digest
    for wrong in ("0" * 64, digest[:7]):
        with pytest.raises(BundleError, match="this is another bundle"):
            open_bundle(folder, Demand(digest=wrong))


def test_unsigned_bundles_open_with_a_note_by_default(folder: Path) -> None:
    assert find_policy() == Policy()
    (note,) = open_bundle(folder).notes
    assert note.endswith("is not signed by a key that is trusted here: it has no signature")


@pytest.mark.parametrize(
    "text",
    [
        "unsigned: maybe", "- x", "keys: 5", "keys: [5]", "keys: [{file: none.pub}]", "keys: [{file: fleet.pub, signs: all}]",
        "revoked: [xyz]", "state: 5", "other: 1", "unsigned: [", "\x00", "keys: [{file: trust.yaml}]", "keys: [{signs: [bundles]}]",
        "unsigned: 5", "unsigned: no", "unsigned: false", "revoked: [aaaaaaaaaaaaaaaa]\nrevoked: []", "unsigned: require\nunsigned: off",
        "unsigned: !!timestamp x", "revoked: [1234567890123456]", 'keys: [{file: "a\\0b"}]', 'state: "a\\0b"',
    ],
)  # fmt: skip
def test_policies_that_are_none(text: str, tmp_path: Path, keys: dict[str, PrivateKey]) -> None:
    path = write_policy(tmp_path, keys, "warn")
    path.write_text(text)
    with pytest.raises(TrustError, match=r"trust.yaml|none.pub"):
        read_policy(path)


@pytest.mark.parametrize("unsigned", ["require", "warn", "off"])
def test_a_policy_is_read_as_it_is_written(unsigned: str, tmp_path: Path, keys: dict[str, PrivateKey]) -> None:
    path = write_policy(tmp_path, keys, "warn")
    path.write_text(f"unsigned: {unsigned}\nkeys: [{{file: fleet.pub}}]\n")
    (tmp_path / "link.yaml").symlink_to(path)
    assert read_policy(tmp_path / "link.yaml").unsigned == unsigned
    assert len(read_policy(path).keys) == 1


@pytest.mark.parametrize("text", ["[" * 100_000, "[", '{"tiny": "7"}', '{"tiny": 1e3}', "null"])
def test_a_state_that_is_none_is_said(text: str, folder: Path, keys: dict[str, PrivateKey], tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(TrustError, match="restore it or remove it"):
        judge(folder, policy("warn", keys["fleet"], state=tmp_path / "state.json"))


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.pop("key"), lambda v: v.update(key=5), lambda v: v.update(extra=1), lambda v: v.update(signature="%%"),
        lambda v: v.update(statement=[]), lambda v: v["statement"].update(sequence=-1), lambda v: v["statement"].update(sequence=True),
        lambda v: v["statement"].update(sequence=1.0), lambda v: v["statement"].update(version=[2, 0]),
        lambda v: v["statement"].update(more=1),
        lambda v: v["statement"].update(engines=[]), lambda v: v["statement"].update(engines={"a/b": 5}),
        lambda v: v["statement"].pop("expires"),
        lambda v: v["statement"].update(made="yesterday"), lambda v: v["statement"].update(bundle="0"),
        lambda v: v["statement"].update(name=5),
    ],
)  # fmt: skip
def test_signatures_of_another_form_are_none(folder: Path, keys: dict[str, PrivateKey], change) -> None:
    path = sign(folder, keys["fleet"], sequence=1)
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    found, wrong = signatures_in(folder)
    assert found == []
    assert len(wrong) == 1


def test_links_and_pipes_are_no_signatures(folder: Path, keys: dict[str, PrivateKey], tmp_path: Path) -> None:
    import os

    path = sign(folder, keys["fleet"], sequence=1)
    path.rename(tmp_path / "real.json")
    path.symlink_to(tmp_path / "real.json")
    os.mkfifo(folder / "signature" / "0123456789abcdef.json")
    found, wrong = signatures_in(folder)
    assert found == []
    assert len(wrong) == 2


def test_keys(tmp_path: Path, keys: dict[str, PrivateKey]) -> None:
    private, public, key = generate(tmp_path, "new")
    assert private.stat().st_mode & 0o777 == 0o600
    assert PublicKey.read(public).id == key == PrivateKey.read(private).public.id
    with pytest.raises(UsageError, match="never overwritten"):
        generate(tmp_path, "new")
    private.chmod(0o644)
    with pytest.raises(TrustError, match="chmod 600"):
        PrivateKey.read(private)
    for name in ("../x", ".x", "", "a/b"):
        with pytest.raises(UsageError, match="cannot name a key"):
            generate(tmp_path, name)
    with pytest.raises(TrustError, match="is no public key"):
        PublicKey.from_pem(b"x", "here")
    assert not keys["fleet"].public.signed(b"data", b"short")


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sign", "keygen", "fleet", "--out", str(tmp_path / "keys")]) == 0
    assert (
        main(["sign", "bundle", str(folder), "--key", str(tmp_path / "keys" / "fleet.key"), "--sequence", "7", "--expires", "2999-01-01"])
        == 0
    )
    rules = tmp_path / "keys" / "trust.yaml"
    rules.write_text("unsigned: require\nkeys: [{file: fleet.pub}]\nstate: seen/state.json\n")
    capsys.readouterr()
    assert main(["sign", "verify", str(folder), "--trust-policy", str(rules), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sequence"] == 7
    run = ["run", "synthetic://road?frames=2", "--bundle", str(folder), "--no-overlay", "--no-sheet", "--trust-policy", str(rules)]
    assert main([*run, "--out", str(tmp_path / "o")]) == 0
    assert json.loads((rules.parent / "seen" / "state.json").read_text()) == {"tiny": 7}
    shutil.rmtree(folder / "signature")
    assert main(["sign", "verify", str(folder), "--trust-policy", str(rules)]) == 1
    assert main([*run, "--out", str(tmp_path / "p")]) == 1
    assert not (tmp_path / "p").exists()
    assert "is not signed by a key that is trusted here" in capsys.readouterr().err
    assert main(["sign", "bundle", str(folder), "--key", str(rules)]) == 1
    assert main(["sign", "bundle", str(folder), "--key", str(tmp_path / "keys" / "fleet.key"), "--expires", "soon"]) == 2
