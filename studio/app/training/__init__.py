"""How a training goes: curves while it runs, and afterwards."""
