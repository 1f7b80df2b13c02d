# @summary The name of a systemd unit, which is also the name of its stamp file.
type Om_messaging::Unit_name = Pattern[/\A[A-Za-z0-9_][A-Za-z0-9:_.@\\-]*\z/]
