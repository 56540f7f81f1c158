"""Published architectures, with the names that their weights files have."""
