"""When to evaluate, draw and log; the arithmetic is in the rooms of ring 1."""
