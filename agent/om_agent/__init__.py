"""om-agent: configure messaging on one overcloud node before its services start.

The modules form one line, ``metadata -> model -> plan -> render -> apply -> report``. A module imports only modules
further left. The table is in ``doc/design.rst``, and ``tests/unit/test_layers.py`` enforces it.
"""

__version__ = "0.1.0"
