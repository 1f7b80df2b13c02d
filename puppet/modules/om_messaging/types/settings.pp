# @summary A hash of sections, keys and values. A key whose value is undef (null in hieradata) must be absent.
type Om_messaging::Settings = Hash[Om_messaging::Section, Hash[Om_messaging::Key, Optional[Om_messaging::Value]]]
