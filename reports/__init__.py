"""Documents and figures from one result."""
