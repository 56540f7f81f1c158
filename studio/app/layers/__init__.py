"""The table of layers: columns, model, filter, editors and the panel around them."""
