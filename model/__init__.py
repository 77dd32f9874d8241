"""The subject of the study: network, data, training, metrics."""
