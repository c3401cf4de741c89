"""What does it cost? Each figure as a ratio to the plain way, in the same run on the same machine. Run with ``make
bench``.
"""
