"""Which module of the project imports which, read from the syntax of every file, so that a new file is seen too."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("grid", "model", "quant")


def files(*folders: str) -> list[str]:
    """The Python files below these folders of the repository, and ``runner.py`` with the product's."""
    found = [str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(found)


def product() -> list[str]:
    return ["runner.py", *files(*PACKAGES)]


@cache
def syntax(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(), file)


def module_name(file: str) -> str:
    """``grid/space/values.py`` -> ``grid.space.values``; a package has the name of its folder."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def modules() -> dict[str, str]:
    """The product's files by module name."""
    return {module_name(file): file for file in product()}


def dotted(node: ast.expr) -> str:
    """``a.b.c`` for a chain of attributes, else an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and dotted(node.value):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def imports(tree: ast.AST, *, inside_functions: bool = True) -> set[str]:
    """All names that a file imports: by statement, by ``import_module``, and by attribute (``torch.ao.x`` as used).

    Without ``inside_functions`` only those that importing the file imports.
    """
    found: set[str] = set()
    for node in _walk(tree, inside_functions):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and dotted(node.func).endswith(("import_module", "__import__")):
            found.update(arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))
        elif isinstance(node, ast.Attribute):
            found.update({dotted(node)} if dotted(node).startswith("torch.") else ())
    return found


def _walk(node: ast.AST, inside_functions: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not inside_functions and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and dotted(child.test).endswith("TYPE_CHECKING"):
            if inside_functions:
                yield from _walk(child, inside_functions)
            continue
        yield child
        yield from _walk(child, inside_functions)


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def imported_modules(file: str, *, inside_functions: bool = True) -> set[str]:
    """The product's own modules that a file imports, with the packages that hold them."""
    found = set()
    for name in imports(syntax(file), inside_functions=inside_functions):
        parts = name.split(".")
        found |= {part for end in range(len(parts)) if (part := ".".join(parts[: end + 1])) in modules()}
    return found


def loaded_with(module: str) -> dict[str, str]:
    """What importing a module of the product imports: names outside of the product, each with the file that does."""
    outside: dict[str, str] = {}
    seen, waiting = set(), [module]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        file = modules()[one]
        for name in imports(syntax(file), inside_functions=False):
            if name.partition(".")[0] not in (*PACKAGES, "runner"):
                outside.setdefault(name, file)
        waiting += imported_modules(file, inside_functions=False)
        if "." in one:
            waiting.append(one.rpartition(".")[0])
    return outside
