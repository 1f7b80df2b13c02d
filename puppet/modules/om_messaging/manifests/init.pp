# @summary Edits the messaging keys of OpenStack services and restarts what reads them.
#
# Every parameter can come from hieradata. Configuration files and stamps are written first, then the units of
# routers and brokers are started or restarted, then those units of services whose keys changed, and last the routers
# and brokers that nobody uses any more are stopped. A failure in one step keeps the later steps from running.
#
# @param config_files
#   Which keys each configuration file must have. Hieradata gives a plain hash: the module's own data makes it
#   Sensitive and adds up all levels of the hierarchy.
# @param units
#   The units of the router and the broker. `config_digest` stands for files that puppet does not write: when it
#   changes, a running unit is restarted once.
# @param manage_service
#   Whether units are managed at all. When false (images, tests) there is no service resource, and no stamp, so that
#   the next run that does manage units restarts what still runs with an older configuration.
# @param state_dir
#   Where the digest that each unit was last restarted for is kept. Its parent directory must exist.
# @param service_provider
#   The provider of the service resources, instead of the platform's own.
#
# @example With hieradata only
#   include om_messaging
#
# @example Without hieradata
#   class { 'om_messaging':
#     config_files => Sensitive({
#       '/etc/nova/nova.conf' => {
#         settings => { 'DEFAULT' => { 'transport_url' => 'rabbit://notify:secret@controller:5672/' } },
#         units    => ['nova-compute'],
#       },
#     }),
#   }
class om_messaging (
  Sensitive[Hash[Stdlib::Absolutepath, Om_messaging::Config]] $config_files = Sensitive({}),
  Hash[Om_messaging::Unit_name, Om_messaging::Unit] $units = {},
  Boolean $manage_service = true,
  Stdlib::Absolutepath $state_dir = '/var/lib/om-agent/units',
  Optional[String[1]] $service_provider = undef,
) {
  $files = $config_files.unwrap

  $files.each |$path, $file| {
    $file_units = $manage_service ? {
      true    => pick($file['units'], []),
      default => [],
    }
    om_messaging::config_file { $path:
      settings           => Sensitive($file['settings']),
      owner              => $file['owner'],
      group              => $file['group'],
      mode               => $file['mode'],
      style              => pick($file['style'], 'oslo'),
      units              => $file_units,
      removable_sections => pick($file['removable_sections'], []),
    }
  }

  if $manage_service {
    $config = $files.keys.map |$path| { Om_messaging::Config_file[$path] }
    $stamped = $units.filter |$name, $unit| { $unit['config_digest'] =~ NotUndef }
    $stamps = $stamped.keys.map |$name| { File["${state_dir}/${name}"] }
    $stopped = $units.filter |$name, $unit| { $unit['ensure'] == 'stopped' }
    $first = ($units.keys - $stopped.keys).map |$name| { Service[$name] }
    $service_units = unique($files.values.map |$file| { pick($file['units'], []) }.flatten) - $units.keys

    unless empty($stamped) {
      file { $state_dir:
        ensure => directory,
        mode   => '0700',
        links  => follow,
        backup => false,
      }
    }

    $stamped.each |$name, $unit| {
      file { "${state_dir}/${name}":
        ensure    => file,
        mode      => '0600',
        content   => "${unit['config_digest']}\n",
        show_diff => false,
        backup    => false,
        notify    => Service[$name],
      }
    }

    $units.each |$name, $unit| {
      $before_it = $unit['ensure'] ? {
        'stopped' => $first + $service_units.map |$other| { Service[$other] },
        default   => [],
      }
      service { $name:
        ensure   => $unit['ensure'],
        enable   => $unit['enable'],
        provider => $service_provider,
        require  => $config + $stamps + $before_it,
      }
    }

    # Neither started nor enabled: puppet restarts such a unit only when it runs.
    service { $service_units:
      provider => $service_provider,
      require  => $config + $stamps + $first,
    }
  }
}
