"""One figure of a benchmark as a JSON line."""

import json


def say(name: str, value: float, unit: str, against: str) -> None:
    """Print ``{"name", "value", "unit", "against"}``; ``against`` says what it was measured beside."""
    print(json.dumps({"name": name, "value": float(f"{value:.4g}"), "unit": unit, "against": against}), flush=True)
