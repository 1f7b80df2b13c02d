"""Real routers, a real broker and real oslo.messaging on one machine, configured by nothing but what om-agent rendered.

For the demo, tests and benchmarks; never on a node. One direction of imports, each module readable alone::

    errors <- processes <- sockets <- overcloud <- rabbitmq
                                      management <- routers
                           workload (the child's side), workers (the parent's)
    console <- demo

Everything that is started belongs to a `processes.Supervisor`, which ends it whatever happens.
"""
