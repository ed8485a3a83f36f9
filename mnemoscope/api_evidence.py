"""What makes an audit into evidence for others; ``mnemoscope.api`` has these functions under the same names."""

__all__: list[str] = []
