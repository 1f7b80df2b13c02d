# @summary The name of a section of a configuration file, without brackets.
type Om_messaging::Section = Pattern[/\A[^\s\[\]](?:[^\[\]\r\n]*[^\s\[\]])?\z/]
