"""Names of the files that stages leave beside their figures."""

SAMPLES, PREDICTIONS = "samples.npz", "predictions.npy"
PER_IMAGE = "per_image.csv"
LATENCIES, OPERATORS = "latencies.npy", "operators.txt"
ANALYSIS_CSV, ANALYSIS_JSON = "analysis.csv", "analysis.json"
ANALYSIS_ERRORS, ANALYSIS_RANGES = "analysis-errors.png", "analysis-ranges.png"
INSPECTION = "inspection.json"
