"""The colours of methods, engines, verdicts and the Pareto front, the same in all figures."""

METHODS = {"fp32": "#555555", "ptq": "#d95f02", "qat": "#1f78b4", "ptq+qat": "#1b9e77"}
ENGINES = {
    "PyTorch, float": "#555555", "qnnpack": "#d95f02", "x86": "#1f78b4", "onednn": "#6a3d9a", "xnnpack": "#1b9e77",
    "onnxruntime": "#b8860b", "litert": "#a6761d",
}  # fmt: skip
FRONT = "#e7298a"
OTHER = "#000000"
VERDICTS = {"better": "#1b9e77", "equivalent": "#1f78b4", "undecided": "#888888", "worse": "#d95f02"}
"""In the order of a key. Told apart without colours too: by their words and by where they lie."""
MARGIN = "#e3edf5"
PLACES = {"int8": "#1f78b4", "float": "#d95f02", "moves data": "#999999", "folded": "#cccccc"}
"""Where an operator runs."""
