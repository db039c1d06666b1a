"""How much memory a model takes somewhere, and how fast it is there."""
