"""A small single AMQP 1.0 router in Python, for laptops and CI. For development only.

It reads the JSON configuration that is written for qdrouterd and carries what oslo.messaging's AMQP 1.0 driver
needs, where no router package exists. One direction of imports, each module readable alone::

    errors, schema <- config <- wire, addresses, deliveries <- inlink, outlink <- router <- connection <- engine <- cli
    reader, policy <- policyconfig <- config        policy <- admission <- router
                                schema <- management <- views <- router        security <- connection     status <- cli

``reader``, ``config``, ``policyconfig``, ``policy``, ``admission`` (which logs), ``wire``, ``addresses``, ``schema``
and ``management`` are pure; proton is used by ``security``, ``inlink``, ``outlink``, ``router``, ``connection`` and
``engine`` only, always from one thread.
"""

__version__ = "0.1.0"

#: How the router names itself to clients, and in messages.
PRODUCT = "om-devrouter"
