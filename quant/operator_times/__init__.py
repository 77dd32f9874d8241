"""How long each operator of a network takes on its engine, as the engine itself tells."""
