# frozen_string_literal: true

module PuppetX; end
module PuppetX::OmMessaging; end

# Opens a configuration file safely and checks the opened file.
#
# The directory may belong to the service that reads the file. The service could replace the file with a link to another
# file between two steps. So this module follows no link and refuses a file with a second name, and its callers read and
# change owner and mode through the open descriptor.
module PuppetX::OmMessaging::RegularFile
  # NONBLOCK: do not wait for the other end if the file is a pipe.
  CAREFUL = File::NOFOLLOW | File::NONBLOCK

  # Yields the open file. `flags` decide what happens when it does not exist.
  def self.open(path, flags)
    File.open(path, flags | CAREFUL, 0o640) do |file|
      file.binmode
      state = file.stat
      refuse(path) unless state.file?
      raise Puppet::Error, "#{path} has #{state.nlink} names (hard links): replace it with a copy" unless state.nlink == 1

      yield file
    end
  rescue Errno::ELOOP, Errno::ENXIO, Errno::EISDIR
    refuse(path)
  end

  # Yields the open file if it exists, otherwise returns nil.
  def self.look(path, &block)
    self.open(path, File::RDONLY, &block)
  rescue Errno::ENOENT
    nil
  end

  def self.refuse(path)
    raise Puppet::Error, "#{path} is a symbolic link or not a regular file: name the file itself"
  end
  private_class_method :refuse
end
