"""From a network to its graph in normal form, on which all techniques work."""
