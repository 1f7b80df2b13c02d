# @summary What stands behind the equals sign: one line, which neither starts nor ends with a blank.
type Om_messaging::Value = Pattern[/\A(?:\S(?:[^\r\n\0]*\S)?)?\z/]
