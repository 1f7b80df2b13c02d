# @summary The value of a key: one line without spaces at the start or the end.
type Om_messaging::Value = Pattern[/\A(?:\S(?:[^\r\n\0]*\S)?)?\z/]
