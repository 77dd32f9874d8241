"""YAML as a user wrote it, read so that no text runs code, fills the memory or ends in a traceback."""

from collections import Counter
from typing import Any

import yaml

LONGEST = 100_000
"""Characters of a text, and of what its aliases make of it."""
DEEPEST = 40
LONGEST_NUMBER = 100


def read_yaml(text: str) -> tuple[Any, list[str]]:
    """The document, and what is said twice in it (YAML keeps the last of two equal keys without a word).

    Raises ValueError with the reason where the text is no YAML, too long, too deep, or more than plain values.
    """
    if len(text) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} characters")
    twice: list[str] = []
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, []
        _extent(node, {}, twice)
        return loader.construct_document(node), twice
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except ValueError:
        raise
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except Exception as error:  # what PyYAML raises on !!bool x, !!int "" and their like
        raise ValueError(f"a tag and its value do not fit, {type(error).__name__}: {error}") from error


def _extent(node: yaml.Node, known: dict[int, tuple[int, int]], twice: list[str]) -> tuple[int, int]:
    """Characters and depth of a node once its aliases are followed, which share their nodes until then."""
    if id(node) in known:
        if known[id(node)] == (0, 0):
            raise ValueError("an alias stands within what it is the alias of")
        return known[id(node)]
    known[id(node)] = (0, 0)
    if isinstance(node, yaml.CollectionNode):
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
            names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            at = f"in the mapping at line {node.start_mark.line + 1}"
            twice += [f"{name!r} is there twice {at}" for name in sorted(names) if names[name] > 1]
        extents = [_extent(part, known, twice) for part in parts]
        extent = 1 + sum(size for size, _ in extents), 1 + max((depth for _, depth in extents), default=0)
    else:
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > LONGEST_NUMBER:
            raise ValueError(f"a number of {len(node.value)} digits at line {node.start_mark.line + 1}")
        extent = 1 + len(node.value), 0
    if extent[0] > LONGEST:
        raise ValueError(f"its aliases make more than {LONGEST} characters of it")
    if extent[1] > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    known[id(node)] = extent
    return extent
