# frozen_string_literal: true

Puppet::Type.newtype(:om_messaging_file) do
  @doc = "@summary Manages the owner, group and mode of a configuration file, and whether the file exists.

  It does not manage the content. Unlike `file`, it never follows a link, not even one that replaces the file at the
  last moment. So nobody who can write in the directory can make puppet give away another file."

  ensurable do
    desc 'Whether puppet creates an empty file if there is none. It never removes an existing file.'
    newvalue(:present) { provider.create }
    defaultto { nil }
  end

  newparam(:path, namevar: true) do
    desc 'The absolute path of the file.'
    validate do |value|
      raise ArgumentError, "#{value} is not an absolute path" unless Puppet::Util.absolute_path?(value)
    end
  end

  newproperty(:owner) do
    desc 'The name or the number of the owner.'

    def insync?(current)
      provider.uid(should) == current
    end
  end

  newproperty(:group) do
    desc 'The name or the number of the group.'

    def insync?(current)
      provider.gid(should) == current
    end
  end

  newproperty(:mode) do
    desc 'The permissions, as octal digits or in the symbolic form of chmod(1).'

    def insync?(current)
      provider.permissions(should, current.to_i(8)) == current.to_i(8)
    end
  end
end
