"""Estimates to words: endpoints, gates, power, rules, the result document."""
