# This node's certificate for messaging. The users of the router and the broker may read its key. A router reads a new
# certificate only when it starts; RabbitMQ loads it while it runs.
include certmonger
ensure_resource('certmonger_certificate', 'messaging', {
  'ensure'       => 'present',
  'ca'           => 'IPA',
  'hostname'     => hiera('fqdn_@NETWORK@'),
  'dnsname'      => hiera('fqdn_@NETWORK@'),
  'principal'    => join(['messaging/', hiera('fqdn_@NETWORK@')], ''),
  'certfile'     => '@CERTIFICATE@',
  'keyfile'      => '@KEY@',
  'postsave_cmd' => join([
      'sh -c "for user in qdrouterd skrouterd rabbitmq; do',
      'if id -u $user; then setfacl -m u:$user:r @KEY@; fi; done >/dev/null 2>&1;',
      'systemctl try-restart qdrouterd skrouterd"',
    ], ' '),
  'wait'         => true,
})
