"""Sensitivity of the layers: table, plot, outlier channels."""
