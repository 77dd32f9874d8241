"""The colours of methods, engines and the Pareto front, the same in all figures."""

METHODS = {"fp32": "#555555", "ptq": "#d95f02", "qat": "#1f78b4", "ptq+qat": "#1b9e77"}
ENGINES = {
    "PyTorch, float": "#555555", "qnnpack": "#d95f02", "x86": "#1f78b4", "onednn": "#6a3d9a", "xnnpack": "#1b9e77",
    "onnxruntime": "#b8860b",
}  # fmt: skip
FRONT = "#e7298a"
OTHER = "#000000"
