"""Devices that measure: how they are reached, what they say of themselves, and how networks are timed on them."""
