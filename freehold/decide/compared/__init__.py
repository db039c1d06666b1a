"""The ranking at other volumes and inputs, and what would do where nothing does."""
