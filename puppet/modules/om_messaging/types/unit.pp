# @summary The desired state of the unit of a router or a broker. Attributes that are not given do not change.
type Om_messaging::Unit = Struct[{
  Optional[ensure]        => Enum['running', 'stopped'],
  Optional[enable]        => Boolean,
  Optional[config_digest] => Pattern[/\A[0-9a-f]{64}\z/],
}]
