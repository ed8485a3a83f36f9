"""One file an unlearning method."""
