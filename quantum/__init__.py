"""The mathematics behind emulation.py: linear solvers, readout and the classical competitors.

No files, no options.
"""
