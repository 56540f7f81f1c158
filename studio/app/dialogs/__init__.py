"""Dialogs: consent, data, export summary, errors."""
