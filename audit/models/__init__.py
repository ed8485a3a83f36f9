"""The torch room: architectures, training, inference, the user's own model."""
