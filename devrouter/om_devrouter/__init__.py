"""A small single AMQP 1.0 router in Python, for laptops and CI. For development only.

It reads the JSON configuration that is written for qdrouterd and carries what oslo.messaging's AMQP 1.0 driver
needs, where no router package exists. Its modules import in one direction, and each can be read alone
(``tests/devrouter/test_layers.py`` checks this)::

    errors, schema, policy, wire <- reader <- policyconfig <- config <- addresses, admission, management
    <- deliveries <- links <- inlink, outlink <- router <- views, security, connection, status <- engine <- cli

``deliveries`` says what the link of a producer and of a consumer must offer: ``inlink`` and ``outlink`` do. ``links``
says what links need of their connection and of the router: ``connection`` and ``router`` offer it. Only ``connection``,
``engine``, ``inlink``, ``router`` and ``security`` import proton, and one thread uses it. The modules up to
``links`` are pure, except that ``admission`` logs.
"""

__version__ = "0.1.0"

#: How the router names itself to clients, and in messages.
PRODUCT = "om-devrouter"
