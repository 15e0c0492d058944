"""A run: its folder, its parts built when asked for, what it measures and what it leaves."""
