# Messaging is right before OpenStack's services are configured (step 3 and later). A node that is right already is left
# alone, so that each step may ask. What was kept down by om-agent-apply.service, at the first boot, starts then.
if Integer(hiera('step')) >= 2 {
  ensure_resource('exec', 'om-agent apply', {
    'path'      => ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'],
    'logoutput' => 'on_failure',
    'timeout'   => 900,
    'tries'     => 1,
  })
  ensure_resource('exec', 'start what waits for om-agent', {
    'command' => 'systemctl start --no-block om-agent-apply.service',
    'unless'  => 'systemctl --quiet is-active om-agent-apply.service',
    'path'    => ['/usr/sbin', '/usr/bin', '/sbin', '/bin'],
    'require' => 'Exec[om-agent apply]',
  })
}
