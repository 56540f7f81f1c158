"""The document a user works on, and the steps that take it from an opened model to an export."""
