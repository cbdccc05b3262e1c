"""What is added to a bundle: heads of one's own and tables of predicted packets. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from percodec.export.bundles.familiar import learn_familiarity
from percodec.export.bundles.stream_tables import learn_stream
from percodec.export.bundles.user_heads import parse_head, read_labels, user_head
from percodec.sdk.bundle import Bundle, GraphInfo, Label, extend_bundle
from percodec.sdk.codec import EntropyModel, StepsModel
from percodec.sdk.errors import UsageError
from percodec.sdk.familiarity import Familiarity

Say = Callable[[str], None]


@dataclass(frozen=True)
class Additions:
    """`provenance` joins the manifest's, `card` follows MODEL_CARD.md."""

    heads: tuple[tuple[GraphInfo, bytes], ...] = ()
    stream_model: EntropyModel | StepsModel | None = None
    familiarity: Familiarity | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    card: str = ""


def additions(
    bundle: Bundle,
    heads: Sequence[str],
    head_labels: Sequence[str] = (),
    stream_from: Sequence[str] = (),
    familiar: tuple[Sequence[str], Sequence[str]] = ((), ()),
    say: Say = lambda text: None,
) -> Additions:
    """`heads`: NAME=FILE.onnx:TASK, `head_labels`: NAME=FILE, `stream_from`: specs of consecutive frames.

    `familiar`: specs of frames that are usual, and of others that say how far is too far.
    Raises `UsageError`, `ExportError`, and what a source raises.
    """
    asked, classes = [parse_head(text) for text in heads], _classes(head_labels)
    names = [name for name, _, _ in asked]
    if len(set(names)) < len(names):
        raise UsageError(f"--head names {', '.join(names)}; give each head a name of its own")
    if strangers := set(classes) - set(names):
        raise UsageError(f"--head-labels names {', '.join(sorted(strangers))}, which no --head does")
    found, origin, card = [], dict(bundle.manifest["provenance"].get("added", {})), ""
    for name, file, task in asked:
        info, data = user_head(bundle, name, file, task, classes.get(name, ()))
        gives = ", ".join(f"{t.name} {t.dtype} {list(t.shape)}" for t in info.outputs)
        say(f"{info.name}: {task}, {gives}, {len(data) / 1e6:.2f} MB")
        found.append((info, data))
        origin[info.name] = {"file": file.name, "sha256": hashlib.sha256(data).hexdigest()}
        card += f"| {info.name} | {task} | {gives} | {file.name} |\n"
    if card:
        card = f"\n## Added heads\n| head | task | gives | from |\n| --- | --- | --- | --- |\n{card}"
    provenance: dict[str, Any] = {"added": origin} if found else {}
    tables = None
    if stream_from:
        tables, learned = learn_stream(bundle, stream_from, say)
        provenance |= learned
        rows = "".join(f"- `{s['source']}`, {s['pairs']} pairs of frames\n" for s in learned["stream"])
        card += f"\n## Tables of predicted packets\nLearned from latents of\n\n{rows}"
    usual = None
    if familiar[0]:
        usual, learned = learn_familiarity(bundle, *familiar, say)
        provenance |= learned
        card += _familiarity_card(learned["familiarity"])
    return Additions(tuple(found), tables, usual, provenance, card)


def extend(bundle: Bundle, out: Path, name: str, more: Additions, overwrite: bool = False) -> Bundle:
    """A new bundle with all of `bundle`, byte for byte, and `more`. Raises `BundleError`."""
    card = bundle.file("MODEL_CARD.md") if "MODEL_CARD.md" in bundle.manifest["files"] else f"# {name}\n".encode()
    return extend_bundle(
        bundle,
        out,
        heads=more.heads,
        stream_model=more.stream_model,
        familiarity=more.familiarity,
        name=name,
        provenance=more.provenance,
        extra_files={"MODEL_CARD.md": card + more.card.encode()},
        overwrite=overwrite,
    )


def _familiarity_card(learned: dict[str, Any]) -> str:
    usual = "".join(f"- usual: `{s['source']}`, {s['frames']} frames\n" for s in learned["usual"])
    limits = "".join(f"- limit: `{s['source']}`, {s['frames']} frames, {s['limit']}\n" for s in learned["limit_from"])
    about = f"The largest limit holds; {100 * learned['beyond']:g} % of those frames are beyond theirs."
    return f"\n## Familiarity\nA monitor of the scene, not a safety mechanism. {about}\n\n{usual}{limits}"


def _classes(items: Sequence[str]) -> dict[str, tuple[Label, ...]]:
    found = {}
    for item in items:
        name, equals, file = item.partition("=")
        if not (name and equals and file):
            raise UsageError(f"--head-labels {item!r}: write it as NAME=FILE")
        found[name] = read_labels(Path(file))
    return found


__all__ = ["Additions", "additions", "extend"]
