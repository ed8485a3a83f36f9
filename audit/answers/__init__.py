"""What an attack may see, and the question asked."""
