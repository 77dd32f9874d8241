"""Names of the files that stages leave beside their figures."""

SAMPLES, PREDICTIONS = "samples.npz", "predictions.npy"
PER_IMAGE = "per_image.csv"
LATENCIES, OPERATORS, OPERATOR_TIMES = "latencies.npy", "operators.txt", "operators.csv"
ANALYSIS_CSV, ANALYSIS_JSON = "analysis.csv", "analysis.json"
ANALYSIS_ERRORS, ANALYSIS_RANGES = "analysis-errors.png", "analysis-ranges.png"
INSPECTION = "inspection.json"
