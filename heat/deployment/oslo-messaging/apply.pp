# Configure messaging before OpenStack's services are configured (step 3 and later). om-agent changes nothing on a node
# that is already correct, so every step may run it. Then start the units that om-agent-apply.service kept down at the
# first boot.
# A role may include this manifest twice, so it assigns no variable.
if Integer(hiera('step')) >= 2 {
  [{
    'command'   => 'om-agent apply',
    'path'      => ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'],
    'logoutput' => 'on_failure',
    'timeout'   => 900,
    'tries'     => 1,
  }].each |Hash $agent| {
    ensure_resource('exec', 'om-agent apply', $agent)
    # A service's own classes remove every key for which they have no parameter. If they changed the configuration, run
    # om-agent again before that service starts. Nothing runs for a service that is not in the catalog.
    [
      'aodh', 'barbican', 'ceilometer', 'cinder', 'congress', 'designate', 'glance', 'heat', 'ironic', 'keystone',
      'manila', 'mistral', 'neutron', 'nova', 'novajoin', 'octavia', 'sahara', 'swift', 'tacker',
    ].each |String $service| {
      ensure_resource('exec', "om-agent apply for ${service}", $agent + { 'refreshonly' => true })
      Anchor<| title == "${service}::config::end" |>
      ~> Exec["om-agent apply for ${service}"]
      -> Anchor<| title == "${service}::service::begin" |>
    }
  }
  ensure_resource('exec', 'start what waits for om-agent', {
    'command' => 'systemctl start --no-block om-agent-apply.service',
    'unless'  => 'systemctl --quiet is-active om-agent-apply.service',
    'path'    => ['/usr/sbin', '/usr/bin', '/sbin', '/bin'],
    'require' => 'Exec[om-agent apply]',
  })
}
