"""How a command starts under Hydra, explains what is wrong, runs a sweep and sums it up."""
