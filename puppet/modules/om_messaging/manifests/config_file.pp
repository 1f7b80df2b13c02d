# @summary Holds some keys of one configuration file that belongs to somebody else.
#
# Other keys, comments, their order and the inode of the file stay as they are. The directory of the file must exist.
# A file that does not exist is made, readable by its owner and group only, before the first key is written to it;
# it is not made when no key has a value. A symbolic link is refused: whoever owns the directory could make it lead to
# another's file at any time.
#
# @param settings
#   Section, key, value. A key whose value is undef is removed.
# @param path
#   The configuration file.
# @param owner
#   The owner of the file; not managed by default.
# @param group
#   The group of the file; not managed by default.
# @param mode
#   The mode of the file; not managed by default, except that a new file gets 0640.
# @param style
#   Which program reads the file: oslo.config, or PasteDeploy.
# @param removable_sections
#   Sections that are removed with their last key: those that were not in the file before. The header of any other
#   section stays.
# @param units
#   Services, declared elsewhere, that are restarted when a key changes.
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

  # Before the first key, which may be a secret.
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
