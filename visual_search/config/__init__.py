"""The settings that a command takes, and the builders that they may name."""
