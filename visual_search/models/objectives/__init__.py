"""What a network is trained for: one file a family, one builder a variant."""
