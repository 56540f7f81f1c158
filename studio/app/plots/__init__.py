"""Plots of ranges and histograms, drawn with pyqtgraph in the theme's colours. Plain numbers in."""

from studio.app.plots.histogram import HistogramPlot
from studio.app.plots.ranges import RangePlot, WeightRangePlot

__all__ = ["HistogramPlot", "RangePlot", "WeightRangePlot"]
