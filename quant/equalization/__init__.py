"""Scales of channels that ease quantization."""
