"""What a cell is called: the settings that tell it from others, as search spaces write them."""

import re
from collections.abc import Iterable

from grid.space.settings import Flat, Scalar, groups, switch_of
from quant.recipe import FINETUNED


def written(key: str, relevant: Flat) -> tuple[Scalar, ...]:
    """The value of a setting as search spaces write it, a group being true or false; () if it is ignored."""
    if key not in groups():
        return (relevant[key],) if key in relevant else ()
    switch = switch_of(relevant, key)
    return () if switch is None else (switch,)


def cell_name(relevant: Flat, varied: Iterable[tuple[str, tuple[Scalar, ...]]]) -> str:
    """``fuse_bn-per_tensor-ptq+qat-qat.epochs=2-s1``: what tells a cell from others, safe as a file name."""
    parts: list[Scalar] = ["fuse_bn"] if relevant["fuse_bn"] else []
    if relevant["method"] == FINETUNED:  # with BatchNorm folded, unless somebody asks for the other
        parts = [FINETUNED] if relevant["fuse_bn"] else [FINETUNED, "live_bn"]
    elif relevant["method"] == "fp32":
        parts = ["fp32", *parts]
    else:
        parts = [*parts, relevant["granularity"], relevant["method"]]
    keys = [key for key, _ in varied if key not in ("fuse_bn", "granularity", "method")]
    if relevant["method"] == "fp32" and "engine" in relevant and "engine" not in keys:
        keys.append("engine")  # the float file of the grid's only engine, beside PyTorch's float network
    if "float_runtime" in relevant and "float_runtime" not in keys:
        keys.append("float_runtime")
    for key in keys:
        for value in written(key, relevant):
            text = ("off", "on")[value] if isinstance(value, bool) else value
            short = {"seed": f"s{text}", "float_runtime": str(text)}
            parts.append(short.get(key, f"{key}={text}"))
    return re.sub(r"[^\w.=+-]", "_", "-".join(map(str, parts)))
