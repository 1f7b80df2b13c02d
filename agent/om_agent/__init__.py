"""om-agent: makes one overcloud node's messaging configuration right before its services start.

The modules form one line, ``metadata -> model -> plan -> render -> apply -> report``, and none of them imports one
further right; ``doc/design.rst`` has the table and ``tests/unit/test_layers.py`` holds it.
"""

__version__ = "0.1.0"
