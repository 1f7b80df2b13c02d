# @summary What is wanted of the unit of a router or a broker. Attributes that are not given are left as they are.
type Om_messaging::Unit = Struct[{
  Optional[ensure]        => Enum['running', 'stopped'],
  Optional[enable]        => Boolean,
  Optional[config_digest] => Pattern[/\A[0-9a-f]{64}\z/],
}]
