"""The core of the audit: records, answers, statistics, verdicts, models, work. It names no attack and no method."""
