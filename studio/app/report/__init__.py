"""The report in the window, and as PDF."""
