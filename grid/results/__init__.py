"""Rows, verdicts and recommendation."""
