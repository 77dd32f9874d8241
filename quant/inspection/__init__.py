"""How much of a network runs in int8 on each engine, told from what the engines make of it."""
