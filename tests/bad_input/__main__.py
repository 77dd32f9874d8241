"""``python -m tests.bad_input``: how many inputs the tests of this folder try, by kind."""

from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    names = sorted(path.stem for path in Path(__file__).parent.glob("test_*.py"))
    counts = {name.removeprefix("test_bad_"): import_module(f"tests.bad_input.{name}").INPUTS for name in names}
    for name, count in counts.items():
        print(f"{count:6} {name.replace('_', ' ')}")
    print(f"{sum(counts.values()):6} in all")
