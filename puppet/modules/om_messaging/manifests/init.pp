# @summary Edits the messaging keys of OpenStack services and restarts the services that read them.
#
# Every parameter can come from hieradata. The class works in four steps. A failure in one step stops the later steps.
#
# 1. Write configuration files and stamps.
# 2. Start or restart the units of routers and brokers.
# 3. Restart the units of services whose keys changed.
# 4. Stop the routers and brokers that no service uses any more.
#
# @param config_files
#   The keys that each configuration file must have. Hieradata is a plain hash: the module's own data makes it Sensitive
#   and merges all levels of the hierarchy.
# @param units
#   The units of the router and the broker. `config_digest` is a digest of files that puppet does not write. When it
#   changes, puppet restarts a running unit once.
# @param manage_service
#   Whether puppet manages units. When false (images, tests) the catalog has no service resource and no stamp. The next
#   run that manages units then restarts the units that still run with an older configuration.
# @param state_dir
#   The directory of the stamps. A stamp has the digest for which puppet last restarted a unit. The parent directory
#   must exist.
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

    # Without ensure and enable, puppet only restarts such a unit, and only if it runs.
    service { $service_units:
      provider => $service_provider,
      require  => $config + $stamps + $first,
    }
  }
}
