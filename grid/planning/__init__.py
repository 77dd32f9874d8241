"""The cells of a grid and the graph of stages that they share."""
