"""The stage that measures on devices."""
