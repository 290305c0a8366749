"""What should happen next, and what has happened."""
