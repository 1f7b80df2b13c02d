"""An AMQP 1.0 driver for oslo.messaging, for routers (qpid-dispatch-router, skupper-router) instead of a broker."""
