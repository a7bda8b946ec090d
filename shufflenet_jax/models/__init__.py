"""The networks, a file for each family."""
