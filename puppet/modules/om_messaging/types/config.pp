# @summary What is wanted of one configuration file. Attributes that are not given are left as they are.
#
# It cannot be called Config_file: that name is the resource type which the define om_messaging::config_file makes.
type Om_messaging::Config = Struct[{
  settings                     => Om_messaging::Settings,
  Optional[owner]              => String[1],
  Optional[group]              => String[1],
  Optional[mode]               => Stdlib::Filemode,
  Optional[style]              => Enum['oslo', 'paste'],
  Optional[removable_sections] => Array[Om_messaging::Section],
  Optional[units]              => Array[Om_messaging::Unit_name],
}]
