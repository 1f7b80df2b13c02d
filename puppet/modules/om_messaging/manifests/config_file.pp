# @summary Manages some keys of one configuration file that belongs to another program.
#
# Other keys, comments, their order and the inode of the file do not change. The directory of the file must exist. If
# the file does not exist, puppet creates it before it writes the first key, and only its owner and group can read it.
# puppet does not create it when no key has a value. It refuses a symbolic link, because the owner of the directory
# could redirect the link to any other file at any time.
#
# @param settings
#   The settings as a hash of sections, keys and values. puppet removes a key whose value is undef.
# @param path
#   The configuration file.
# @param owner
#   The owner of the file; not managed by default.
# @param group
#   The group of the file; not managed by default.
# @param mode
#   The mode of the file; not managed by default, except that a new file gets 0640.
# @param style
#   The program that reads the file: `oslo` is oslo.config, `paste` is PasteDeploy.
# @param removable_sections
#   Sections that puppet removes with their last key. Name the sections that were not in the file before. The header of
#   any other section stays.
# @param units
#   Service resources, declared elsewhere, that puppet restarts when a key changes.
#
# @example Move nova's RPC to the router
#   om_messaging::config_file { '/etc/nova/nova.conf':
#     settings => Sensitive({
#       'DEFAULT'               => { 'transport_url' => 'amqp://rpc:secret@controller:31459/' },
#       'oslo_messaging_rabbit' => { 'heartbeat_timeout_threshold' => undef },
#     }),
#   }
define om_messaging::config_file (
  Sensitive[Om_messaging::Settings] $settings,
  Stdlib::Absolutepath $path = $title,
  Optional[String[1]] $owner = undef,
  Optional[String[1]] $group = undef,
  Optional[Stdlib::Filemode] $mode = undef,
  Enum['oslo', 'paste'] $style = 'oslo',
  Array[Om_messaging::Section] $removable_sections = [],
  Array[Om_messaging::Unit_name] $units = [],
) {
  $sections = $settings.unwrap
  $has_values = $sections.any |$section, $keys| { $keys.any |$key, $value| { $value =~ NotUndef } }
  $has_attributes = [$owner, $group, $mode].any |$attribute| { $attribute =~ NotUndef }

  $ensure = $has_values ? {
    true    => present,
    default => undef,
  }

  # Set owner and mode before writing the first key, because its value may be a secret.
  if $has_values or $has_attributes {
    om_messaging_file { $path:
      ensure => $ensure,
      owner  => $owner,
      group  => $group,
      mode   => $mode,
    }
    $ready = [Om_messaging_file[$path]]
  } else {
    $ready = []
  }

  $sections.each |$section, $keys| {
    $provider = [$style, $section in $removable_sections] ? {
      ['paste', default] => 'om_messaging_paste',
      [default, true]    => 'om_messaging_section',
      default            => 'om_messaging',
    }
    $keys.each |$key, $value| {
      $wanted = $value ? {
        undef   => { ensure => absent },
        default => { ensure => present, value => Sensitive($value) },
      }
      ini_setting { "${path} [${section}] ${key}":
        section           => $section,
        setting           => $key,
        path              => $path,
        provider          => $provider,
        show_diff         => false,
        key_val_separator => ' = ',
        require           => $ready,
        notify            => $units.map |$unit| { Service[$unit] },
        *                 => $wanted,
      }
    }
  }
}
