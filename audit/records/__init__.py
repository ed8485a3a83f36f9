"""Which records there are, and which role each plays in each model."""
