"""Post-training techniques: better rounding and ranges without labels and without retraining."""
