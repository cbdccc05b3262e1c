"""Every public name is in `__all__`, and `__all__` holds nothing else. Read from the source, so nothing has to be installed."""

from __future__ import annotations

import ast

from support.tree import Module


def _defined(tree: ast.Module) -> tuple[set[str], set[str]]:
    """(public functions and classes, every name bound at the top level)."""
    public: set[str] = set()
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
            if not node.name.startswith("_"):
                public.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            bound.update(name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
    return public, bound


def _all(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            value = ast.literal_eval(node.value)
            return [str(name) for name in value]
    return None


def _complaints(module: Module) -> list[str]:
    tree = ast.parse(module.path.read_text(encoding="utf-8"))
    public, bound = _defined(tree)
    names = _all(tree)
    if names is None:
        return [f"{module.name}: no __all__ for {', '.join(sorted(public))}"] if public else []
    lazy = "__getattr__" in bound
    found = [f"{module.name}: {name} is not in __all__" for name in sorted(public - set(names)) if name != "__getattr__"]
    found += [f"{module.name}: __all__ names {name}, which is not there" for name in names if name not in bound and not lazy]
    if len(names) != len(set(names)):
        found.append(f"{module.name}: __all__ repeats a name")
    return found


def test_public_names_are_listed(modules: list[Module]) -> None:
    complaints = [line for module in modules if module.public for line in _complaints(module)]
    assert not complaints, "\n" + "\n".join(complaints)
