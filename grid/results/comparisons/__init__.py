"""Comparisons of cells as tests: paired over images, resampled by scene, with an equivalence margin."""
