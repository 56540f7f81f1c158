"""What every technique declares, so that window, recipe, command line and docs know it alike."""
