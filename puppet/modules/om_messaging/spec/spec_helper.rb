# frozen_string_literal: true

require 'rspec-puppet'

# The dependencies come from the system's packages, so that no run needs a network or a fixtures directory.
RSpec.configure do |config|
  parent = File.expand_path('../..', __dir__)
  dependencies = ENV.fetch('OM_PUPPET_MODULES', '/usr/share/puppet/modules')
  config.module_path = [dependencies, parent].join(File::PATH_SEPARATOR)
  config.setup_fixtures = false
  config.strict_variables = true
  # Puppet 8's defaults, on puppet 7 too: what is questionable is an error, and facts have no legacy names.
  config.before(:each) do
    Puppet[:strict] = :error
    Puppet[:include_legacy_facts] = false if Puppet.settings.setting(:include_legacy_facts)
  end
end
