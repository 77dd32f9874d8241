"""Grids of thousands of cells: what they cost the driver, their report, and a cluster of several nodes."""
