"""Failures put into a running overcloud under load, and what became of the calls and messages meanwhile.

``python -m testbed.recovery`` prints a table; doc/recovery.rst has one and says what it means.
"""
