"""A cell of a run as files for phones, and how far these agree."""
