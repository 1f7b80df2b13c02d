# @summary The name of an option as in oslo.config, without spaces and characters that end a name or start a comment.
type Om_messaging::Key = Pattern[/\A[^\s=:#;\[\]]+\z/]
