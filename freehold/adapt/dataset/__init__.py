"""Files of people become datasets: read, checked, split, reported."""
