# Messaging is right before OpenStack's services are configured (step 3 and later). A node that is right already is left
# alone, so that each step may ask. What was kept down by om-agent-apply.service, at the first boot, starts then.
# A role may have this manifest twice, so it names no variable that could be assigned twice.
if Integer(hiera('step')) >= 2 {
  [{
    'command'   => 'om-agent apply',
    'path'      => ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'],
    'logoutput' => 'on_failure',
    'timeout'   => 900,
    'tries'     => 1,
  }].each |Hash $agent| {
    ensure_resource('exec', 'om-agent apply', $agent)
    # A service's own classes remove what they have no parameter for. Where they changed the configuration, it is made
    # right once more before that service is started. Nothing runs for a service that the catalog does not have.
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
