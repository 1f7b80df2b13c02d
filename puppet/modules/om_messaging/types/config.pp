# @summary The desired state of one configuration file. Attributes that are not given do not change.
#
# The name cannot be Config_file, because the define om_messaging::config_file is a resource type of that name.
type Om_messaging::Config = Struct[{
  settings                     => Om_messaging::Settings,
  Optional[owner]              => String[1],
  Optional[group]              => String[1],
  Optional[mode]               => Stdlib::Filemode,
  Optional[style]              => Enum['oslo', 'paste'],
  Optional[removable_sections] => Array[Om_messaging::Section],
  Optional[units]              => Array[Om_messaging::Unit_name],
}]
