# frozen_string_literal: true

module PuppetX; end
module PuppetX::OmMessaging; end

# A configuration file, opened and looked at in one step.
#
# Its directory may belong to the service that it is for, which could put a link to another's file in its place between
# two steps. So no link is followed, a second name is refused, and owner and mode are those of what was opened.
module PuppetX::OmMessaging::RegularFile
  # Neither waits for the other end of a pipe.
  CAREFUL = File::NOFOLLOW | File::NONBLOCK

  # Yields the file; what happens when it does not exist is for `flags` to say.
  def self.open(path, flags)
    File.open(path, flags | CAREFUL, 0o640) do |file|
      file.binmode
      state = file.stat
      refuse(path) unless state.file?
      raise Puppet::Error, "#{path} has #{state.nlink} names (hard links): copy it" unless state.nlink == 1

      yield file
    end
  rescue Errno::ELOOP, Errno::ENXIO, Errno::EISDIR
    refuse(path)
  end

  # Yields the file if there is one, else returns nil.
  def self.look(path, &block)
    self.open(path, File::RDONLY, &block)
  rescue Errno::ENOENT
    nil
  end

  def self.refuse(path)
    raise Puppet::Error, "#{path} is a symbolic link, or no file at all: name the file itself"
  end
  private_class_method :refuse
end
