"""The rules of placement: each file decides one kind of row, reading nothing but the `Context`."""
