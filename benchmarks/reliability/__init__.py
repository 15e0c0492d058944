"""What is left after kills, damage, hostile files and many requests; see `__main__`."""
