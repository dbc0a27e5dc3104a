"""What RESULTS.md and the figures are made of: the curve of growth, tables, evidence, costs, drawing."""
