"""Benchmarks: one file a question, each prints JSON lines; ratios are measured side by side in one run."""
