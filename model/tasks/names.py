"""The names of the built-in tasks."""

BUILT_IN = ("depth", "classification", "segmentation", "restoration")
"""Depth, the default, first."""
