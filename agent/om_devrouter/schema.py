"""What qpid-dispatch 1.19 calls things: configuration attributes and management columns.

Source: ``python/qpid_dispatch/management/qdrouter.json`` and the column tables of ``src/router_core/agent_*.c`` at
its tag 1.19.0. The columns stand in the order in which qdrouterd answers a query for all attributes.
"""

from __future__ import annotations

#: Prefix of every entity type in a management request.
TYPE_PREFIX = "org.apache.qpid.dispatch."

_CONFIG_ATTRIBUTES = {
    "router": """
        allowResumableLinkRoute allowUnsettledMulticast dataConnectionCount debugDumpFile defaultDistribution
        helloIntervalSeconds helloMaxAgeSeconds id metadata mode name raIntervalFluxSeconds raIntervalSeconds
        remoteLsMaxAgeSeconds saslConfigDir saslConfigName timestampFormat timestampsInUTC workerThreads
    """,
    "sslProfile": """
        caCertFile certFile ciphers name password passwordFile privateKeyFile protocols uidFormat uidNameMappingFile
    """,
    "listener": """
        authenticatePeer cost failoverUrls healthz host http httpRootDir idleTimeoutSeconds
        initialHandshakeTimeoutSeconds linkCapacity maxFrameSize maxSessionFrames maxSessions
        messageLoggingComponents metrics multiTenant name openProperties policyVhost port requireEncryption
        requireSsl role saslMechanisms saslPlugin socketAddressFamily sslProfile stripAnnotations trustedCertsFile
        websockets
    """,
    "address": """
        distribution egressPhase enableFallback ingressPhase name pattern prefix priority waypoint
    """,
    "log": """
        enable includeSource includeTimestamp module name outputFile
    """,
}

#: Configuration entity -> the attributes that may stand in it. ``dataConnectionCount`` is skrouterd's only addition.
CONFIG_ATTRIBUTES: dict[str, frozenset[str]] = {
    entity: frozenset(names.split()) for entity, names in _CONFIG_ATTRIBUTES.items()
}

#: Attributes that would change what the router does, in a way that this router does not implement: entity ->
#: attribute -> the values that mean "off".
UNSUPPORTED: dict[str, dict[str, tuple[object, ...]]] = {
    "router": {},
    "sslProfile": {"uidFormat": (), "uidNameMappingFile": ()},
    "listener": {
        "multiTenant": (False,),
        "saslPlugin": (),
        "policyVhost": (),
        "httpRootDir": (),
        "failoverUrls": (),
        "openProperties": (),
        "trustedCertsFile": (),
    },
    "address": {
        "pattern": (),
        "waypoint": (False,),
        "ingressPhase": (0,),
        "egressPhase": (0,),
        "enableFallback": (False,),
    },
    "log": {},
}

#: Entities that make a mesh, or a policy, and therefore need a real router.
MESH_ENTITIES = frozenset(("connector", "linkRoute", "autoLink", "exchange", "binding"))
POLICY_ENTITIES = frozenset(("policy", "vhost", "vhostUserGroupSettings", "authServicePlugin"))

_COLUMNS = {
    "router": """
        name identity id type mode area version metadata addrCount linkCount nodeCount linkRouteCount autoLinkCount
        connectionCount presettledDeliveries droppedPresettledDeliveries acceptedDeliveries rejectedDeliveries
        releasedDeliveries modifiedDeliveries deliveriesDelayed1Sec deliveriesDelayed10Sec deliveriesStuck
        deliveriesIngress deliveriesEgress deliveriesTransit deliveriesIngressRouteContainer
        deliveriesEgressRouteContainer deliveriesRedirectedToFallback linksBlocked uptimeSeconds memoryUsage
        workerThreads
    """,
    "router.node": """
        id protocolVersion instance linkState nextHop validOrigins address routerLink cost lastTopoChange index name
        identity type
    """,
    "connection": """
        name identity host role protocol dir container sasl isAuthenticated user isEncrypted sslProto sslCipher
        properties sslSsf tenant type ssl opened active adminStatus operStatus uptimeSeconds lastDlvSeconds
        enableProtocolTrace
    """,
    "listener": """
        host port socketAddressFamily role cost sslProfile saslMechanisms authenticatePeer saslPlugin
        requireEncryption requireSsl trustedCertsFile maxFrameSize maxSessions maxSessionFrames idleTimeoutSeconds
        initialHandshakeTimeoutSeconds stripAnnotations linkCapacity multiTenant failoverUrls healthz metrics
        websockets http httpRootDir messageLoggingComponents policyVhost openProperties name identity type
    """,
    "router.address": """
        name identity type key distribution inProcess subscriberCount remoteCount containerCount remoteHostRouters
        deliveriesIngress deliveriesEgress deliveriesTransit deliveriesToContainer deliveriesFromContainer
        deliveriesEgressRouteContainer deliveriesIngressRouteContainer transitOutstanding trackedDeliveries priority
        deliveriesRedirectedToFallback
    """,
    "router.link": """
        name identity type linkName linkType linkDir owningAddr capacity peer undeliveredCount unsettledCount
        deliveryCount connectionId adminStatus operStatus presettledCount droppedPresettledCount acceptedCount
        rejectedCount releasedCount modifiedCount deliveriesDelayed1Sec deliveriesDelayed10Sec deliveriesStuck
        ingressHistogram priority settleRate creditAvailable zeroCreditSeconds
    """,
}

#: Management entity, without the prefix -> its columns.
COLUMNS: dict[str, tuple[str, ...]] = {entity: tuple(names.split()) for entity, names in _COLUMNS.items()}
