"""What RESULTS.md and the figures are made of.

The curve of growth, tables, evidence, costs, drawing.
"""
