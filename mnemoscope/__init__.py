"""Mnemoscope: what does this model still remember about these records?"""

__version__ = "0.1.0"
