"""What our figures say of published measurements, and the values that follow."""
