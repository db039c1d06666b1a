"""What an option costs, part by part."""
