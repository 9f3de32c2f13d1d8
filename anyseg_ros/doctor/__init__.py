"""What a machine has, and what to do about what is missing."""
