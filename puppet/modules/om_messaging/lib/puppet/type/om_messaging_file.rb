# frozen_string_literal: true

Puppet::Type.newtype(:om_messaging_file) do
  @doc = "@summary Holds owner, group and mode of a configuration file, and that there is one.

  What is in the file is no matter. Other than a `file` it never follows a link, not even one that takes the file's place at the last moment, so that
  whoever may write in the directory is given no other file."

  ensurable do
    desc 'Whether the file is made, empty, when there is none; what is there is never removed.'
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
    desc 'The permissions, as octal digits or as chmod(1) takes them.'

    def insync?(current)
      provider.permissions(should, current.to_i(8)) == current.to_i(8)
    end
  end
end
