"""What RESULTS.md and the figures are made of: growth, tables, evidence, costs and findings."""
