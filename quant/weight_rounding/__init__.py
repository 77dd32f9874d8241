"""Weights to integers, with the least error of the output."""
