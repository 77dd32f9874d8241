"""Names of the files that evaluate and profile leave beside their figures."""

SAMPLES, LATENCIES, OPERATORS = "samples.npz", "latencies.npy", "operators.txt"
