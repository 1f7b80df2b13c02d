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
    "policy": """
        defaultVhost enableVhostNamePatterns enableVhostPolicy maxConnections maxMessageSize name policyDir
    """,
    "vhost": """
        aliases allowUnknownUser groups hostname maxConnections maxConnectionsPerHost maxConnectionsPerUser
        maxMessageSize name
    """,
    "vhostUserGroupSettings": """
        allowAdminStatusUpdate allowAnonymousSender allowDynamicLinkRoutes allowDynamicSource allowFallbackLinks
        allowUserIdProxy allowWaypointLinks maxConnectionsPerHost maxConnectionsPerUser maxFrameSize maxMessageSize
        maxReceivers maxSenders maxSessionWindow maxSessions remoteHosts sourcePattern sources targetPattern targets
        users
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
    "policy": {"enableVhostNamePatterns": (False,), "maxMessageSize": (0,), "policyDir": ("",)},
    "vhost": {"aliases": (), "maxMessageSize": (0,)},
    # What allowAdminStatusUpdate and allowDynamicLinkRoutes would allow does not exist here, so both values do.
    "vhostUserGroupSettings": {
        "allowFallbackLinks": (True,),
        "allowWaypointLinks": (True,),
        "maxMessageSize": (0,),
        "maxSessionWindow": (0,),
    },
}

#: Entities that make a mesh, and those of a policy that this router does not have; they need a real one.
MESH_ENTITIES = frozenset(("connector", "linkRoute", "autoLink", "exchange", "binding"))
POLICY_ENTITIES = frozenset(("vhostUserGroupSettings", "authServicePlugin"))

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
    "policy": """
        maxConnections maxMessageSize enableVhostPolicy enableVhostNamePatterns policyDir defaultVhost
        connectionsProcessed connectionsDenied connectionsCurrent linksDenied maxMessageSizeDenied totalDenials name
        identity type
    """,
    "vhost": """
        hostname aliases maxConnections maxMessageSize maxConnectionsPerUser maxConnectionsPerHost allowUnknownUser
        groups name identity type
    """,
    "vhostStats": """
        id hostname connectionsApproved connectionsDenied connectionsCurrent perUserState perHostState sessionDenied
        senderDenied receiverDenied maxMessageSizeDenied name identity type
    """,
}

#: Management entity, without the prefix -> its columns.
COLUMNS: dict[str, tuple[str, ...]] = {entity: tuple(names.split()) for entity, names in _COLUMNS.items()}
